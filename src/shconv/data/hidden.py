"""Names that no user gave: hidden files, and what systems and tools leave behind in folders. None of them is an image
or a class."""

from collections.abc import Iterable

# In lower case, as Windows does not tell cases apart.
WINDOWS = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "system volume information"}
MACOS = {"__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder"}
NETWORK_STORAGE = {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "~snapshot"}
LEFT_BEHIND = WINDOWS | MACOS | NETWORK_STORAGE | {"lost+found", "__pycache__"}


def is_hidden(name: str) -> bool:
    """Of a file or folder: a dot first (.DS_Store, ._photo.jpg, .ipynb_checkpoints), or left behind by a system."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def any_hidden(names: Iterable[str]) -> bool:
    """Of the parts of a path."""
    return any(map(is_hidden, names))
