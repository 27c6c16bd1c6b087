"""The order in which a command's help shows its options: first what one wants, last what clusters need."""

from typing import Any

FIRST = "options"

# "Class.name" is the field as that class declares it, where another class means something else by the name.
GROUPS: dict[str, tuple[str, ...]] = {
    FIRST: (
        *("what", "checkpoint", "run_folder", "source", "data", "model", "models", "arch", "twin", "baseline"),
        *("attack", "attacks", "out", "folder", "epochs", "tables", "figures", "images", "eps", "budget", "seed"),
        *("Reproduce.seeds", "defences", "networks", "RivalOptions.seeds", "device", "log", "push_to_hub"),
    ),
    "network": ("where", "width", "stem", "normalize"),
    "training": (
        *("recipe", "Train.batch_size", "Finetune.batch_size", "learning_rate", "hyper_learning_rate"),
        *("scale_learning_rate", "weight_decay", "hyper_weight_decay", "optimizer", "ema", "augmentation"),
        *("mixup", "cutmix"),
        *("freeze_batch_norm", "precision", "channels_last"),
    ),
    "defence": (
        *("defence", "defence_eps", "defence_step_size", "defence_steps", "defence_sources", "defence_alpha"),
        *("defence_beta", "defence_sigma", "defence_temperature", "defence_adversary", "defence_layer"),
    ),
    "attacks": (
        *("table1_images", "table2_images", "table3_images", "full", "eps_l2", "sources", "AuditCommand.seeds"),
        *("standard", "norm", "selection", "routes", "keep", "steps", "min_confidence", "batch_size", "attack_seed"),
    ),
    "images": ("image_size", "train_preset", "test_preset", "grey", "on_corrupt", "download"),
    "speed and saving": (
        *("workers", "parquet_memory", "graphs", "compile", "save_minutes", "save_steps", "keep_every"),
        "probe_seconds",
    ),
    "several processes and clusters": ("gpus", "accumulation", "sync_batch_norm"),
}


def group_of(kind: type[Any], name: str) -> str:
    """The title; the first one for an option that has no place of its own."""
    return next((title for title, names in GROUPS.items() if _named(kind, name, names) is not None), FIRST)


def order_of(kind: type[Any], name: str) -> tuple[int, int]:
    """What to sort by."""
    title = group_of(kind, name)
    place = _named(kind, name, GROUPS[title])
    return list(GROUPS).index(title), len(GROUPS[title]) if place is None else place


def _named(kind: type[Any], name: str, names: tuple[str, ...]) -> int | None:
    owner = next(each.__name__ for each in kind.__mro__ if name in vars(each).get("__annotations__", ()))
    own = [place for place, each in enumerate(names) if each == f"{owner}.{name}"]
    elsewhere = any(f"{owner}.{name}" in group for group in GROUPS.values())
    return own[0] if own else None if elsewhere or name not in names else names.index(name)
