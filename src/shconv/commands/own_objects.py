"""What a user names on the command line as module:object: an attack, a network, a data set.
Modules are found from the current folder, as `python -m` finds them; whatever fails there is said with its place."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from shconv.errors import InputError, near, raised


def is_object(text: str) -> bool:
    """Does the text have the form module:object (or file.py:object)?"""
    module, colon, name = text.rpartition(":")
    parts = module.removesuffix(".py").replace("\\", "/").split("/")[-1].split(".")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in parts)


def own_object(option: str, text: str) -> Any:
    """The object at module:object or path/file.py:object.

    Raises InputError where the text has another form, the module or object is not there, or importing it fails.
    """
    if not is_object(text):
        raise InputError(f"{option}: got {text!r}; want module:object, such as my_file:my_function")
    module, _, name = text.rpartition(":")
    folder = Path.cwd()
    if module.endswith(".py"):
        file = Path(module).resolve()
        if not file.is_file():
            raise InputError(f"{option} {text}: there is no file {module}")
        folder, module = file.parent, file.stem
    sys.path.insert(0, str(folder))
    try:
        found = import_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"{option} {text}: there is no module {error.name}, neither in {folder} nor installed"
            ) from error
        raise InputError(f"{option} {text}: importing {module} raised {raised(error)}") from error
    finally:
        sys.path.remove(str(folder))
    if not hasattr(found, name):
        hint = near(name, [each for each in vars(found) if not each.startswith("_")], otherwise="look at its names")
        raise InputError(f"{option} {text}: the module {module} has no {name}; {hint}")
    return getattr(found, name)


def own_result(option: str, text: str) -> Any:
    """What the function at module:function returns; an object there that is no function, as it is.

    Raises InputError as `own_object` does, and where the function raises.
    """
    found = own_object(option, text)
    if not (isinstance(found, type) or type(found).__name__ in ("function", "builtin_function_or_method", "partial")):
        return found
    try:
        return found()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{option} {text}: calling it raised {raised(error)}") from error


def named(text: str) -> tuple[str, str]:
    """(name, rest) of NAME=rest; without a name ("", text). What exists as a path has no name before its "="."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or not name or Path(text).exists():
        return "", text
    return name, rest
