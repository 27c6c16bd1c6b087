"""Is there a network, and what libraries that fetch weights are told where there is none: retries are no answer."""

import importlib
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from contextlib import contextmanager
from urllib.parse import urlsplit

SECONDS = 5.0
HOSTS = {"timm": "https://huggingface.co", "torchvision": "https://download.pytorch.org"}


@contextmanager
def at_once(library: str) -> Iterator[None]:
    """In here `library` loads weights that are on this machine, and fails within seconds where others cannot be had.

    Where the place of its weights answers, or a proxy stands in between, nothing is changed.
    """
    if _answers(_place(library)):
        yield
        return
    hub = importlib.import_module("huggingface_hub.constants") if library == "timm" else None
    offline, timeout = getattr(hub, "HF_HUB_OFFLINE", None), socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(SECONDS)
        if hub is not None:
            vars(hub)["HF_HUB_OFFLINE"] = True  # it looks into its cache alone
        yield
    finally:
        socket.setdefaulttimeout(timeout)
        if hub is not None:
            vars(hub)["HF_HUB_OFFLINE"] = offline


def _place(library: str) -> str:
    return (os.environ.get("HF_ENDPOINT") if library == "timm" else None) or HOSTS[library]


def _answers(url: str) -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    parts = urlsplit(url)
    pool = ThreadPoolExecutor(1)  # since looking a name up has no time limit of its own
    try:
        address = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
        pool.submit(socket.create_connection, address, SECONDS).result(SECONDS + 1).close()
    except (OSError, TimeoutError):
        return False
    finally:
        pool.shutdown(wait=False)
    return True
