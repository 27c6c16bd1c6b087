"""Which device a run computes on: the one asked for by name, else the accelerator that there is, else the CPU."""

import torch

from shconv.errors import InputError


def device_named(name: str | None) -> torch.device | None:
    """ "cpu", "cuda", "cuda:1", "mps" ... as torch writes them, made the current one of its kind. None stays None.

    Raises InputError for a name of no device, and for one that is not there; the message says which ones are.
    """
    if name is None:
        return None
    there = available()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device: got {name!r}; want one of {', '.join(there)}") from None
    if device.type == "cpu" and not device.index:
        return torch.device("cpu")
    if device.type not in there or (device.index is not None and f"{device.type}:{device.index}" not in there):
        raise InputError(f"device: {name} is not there: torch finds {', '.join(there)} on this machine")
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)
    return device


def available() -> list[str]:
    """Every name that `device_named` takes here."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    return ["cpu", accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
