"""A command's dataclass as a command line: argparse, with the docstrings below the fields as help, in named groups.
What is misspelt, a command, an option or a choice, is answered with what is near."""

import argparse
import ast
import inspect
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from shconv.commands.help_groups import FIRST, group_of, order_of
from shconv.errors import InputError, near
from shconv.numbers import fits_int64, number


@dataclass(frozen=True)
class Shown:
    """How a field is given, where not as an option of its name: in an Annotated."""

    name: str = ""
    positional: bool = False
    hidden: bool = False  # an option of the class that this command does not use


METAVARS = {"eps": "NUMBER", "eps_l2": "NUMBER", "budget": "TIME", "config": "FILE", "preset": "NAME"}  # not by type
POSITIONAL, HIDDEN = Shown(positional=True), Shown(hidden=True)


def parse(kind: type[Any], command: str, arguments: Sequence[str], base: Any | None, extra: dict[str, str]) -> Any:
    """The options on a command line, in front of those of `base`, an instance that may lack what must be given.

    extra: further options, read by others, to be shown in the help: flag -> help. Raises InputError for whatever does
    not fit, SystemExit after printing the help.
    """
    hints = get_type_hints(kind, include_extras=True)
    shown = {field.name: _shown(hints[field.name]) for field in fields(kind)}
    parser = _parser(kind, command, base, shown, extra)
    parsed = vars(parser.parse_intermixed_args(_spelt(arguments, parser, command)))
    given = {name: value for name, value in parsed.items() if value is not MISSING}
    defaults = {field.name: field.default for field in fields(kind)} if base is None else vars(base)
    values = {**defaults, **given}
    if missing := [name for name, value in values.items() if value is MISSING]:
        wanted = missing[0].upper() if shown[missing[0]].positional else _flag(missing[0], shown[missing[0]])
        raise InputError(f"{command} wants {wanted}; `shconv {command} --help` says what it is")
    return kind(**values)


def _parser(
    kind: type[Any], command: str, base: Any | None, shown: dict[str, Shown], extra: dict[str, str]
) -> argparse.ArgumentParser:
    types = get_type_hints(kind)
    positional = [
        name.upper() + (" ..." if get_origin(types[name]) is tuple else "")
        for name, how in shown.items()
        if how.positional
    ]
    parser = _Parser(
        prog=f"shconv {command}",
        description=inspect.cleandoc(kind.__doc__ or ""),
        usage=" ".join(["shconv", command, *positional, "[OPTIONS]"]),
        formatter_class=_Help,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    said = dict(docs(kind))
    parser._positionals.title = "arguments"
    titles: dict[str, Any] = {}
    for field in sorted(fields(kind), key=lambda field: order_of(kind, field.name)):
        how, about = shown[field.name], said.get(field.name, "")
        if how.hidden:
            continue
        default = field.default if base is None else getattr(base, field.name)
        settings = _settings(types[field.name])
        if field.name in METAVARS:
            settings["metavar"] = METAVARS[field.name]
        if how.positional:
            settings |= {"nargs": "*" if "action" in settings else "?", "default": MISSING}
            settings["metavar"] = settings["metavar"] if settings["metavar"].startswith("{") else field.name.upper()
            parser.add_argument(field.name, help=_escaped(about), **settings)
            continue
        title = group_of(kind, field.name)
        if title not in titles:
            titles[title] = parser.add_argument_group(title)
        titles[title].add_argument(
            _flag(field.name, how), dest=field.name, help=_escaped(about + _default(default, about)), **settings
        )
    first = titles[FIRST] if FIRST in titles else parser.add_argument_group(FIRST)
    for flag, about in extra.items():
        first.add_argument(flag, help=_escaped(about), metavar=METAVARS[flag.removeprefix("--")])
    first.add_argument("-h", "--help", action="help", help="Show this help.")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog.removeprefix('shconv ')}: {message.removeprefix('argument ')}")


class _Help(argparse.HelpFormatter):
    """Options at the left, what they are below them; paragraphs stay paragraphs."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=8)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n"))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return ", ".join(action.option_strings)
        return super()._format_action_invocation(action)


def docs(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """(field, the docstring below it) of a dataclass and those it inherits from; nothing where there is no source."""
    for each in reversed(kind.__mro__):
        if is_dataclass(each):
            yield from _own_docs(each)


@cache
def _own_docs(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:
        return ()
    return tuple(
        (above.target.id, " ".join(str(ast.literal_eval(below.value)).split()))
        for above, below in pairwise(tree.body if isinstance(tree, ast.ClassDef) else ())
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr)
    )


def _spelt(arguments: Sequence[str], parser: argparse.ArgumentParser, command: str) -> list[str]:
    """The arguments, --a_b as --a-b. Raises InputError for an option that does not exist."""
    known = [flag for action in parser._actions for flag in action.option_strings]
    spelt = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--") and len(flag) > 2:
            flag = flag.replace("_", "-")
            if flag not in known:
                hint = near(flag, known, otherwise=f"`shconv {command} --help` lists them")
                raise InputError(f"{command} has no option {flag}; {hint}")
            argument = flag + equals + value
        spelt.append(argument)
    return spelt


def _settings(kind: Any) -> dict[str, Any]:
    """add_argument's, for a type that options have."""
    optional = get_origin(kind) in (Union, UnionType)
    if optional:
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return {"nargs": "*", "type": partial(_read, inner, False), "metavar": _metavar(inner), "action": _Tuple}
    return {"type": partial(_read, kind, optional), "metavar": _metavar(kind)}


class _Tuple(argparse.Action):
    """Values together; an option that is given again adds to what it held."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        if values is not MISSING:
            before = getattr(namespace, self.dest, ()) if option_string else ()
            setattr(namespace, self.dest, (*before, *values))


def _read(kind: Any, optional: bool, text: str) -> Any:
    """One argument as a value of `kind`; "none" is None where that is a value too."""
    if optional and text.lower() == "none" and "none" not in get_args(kind):
        return None
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        choices = list(map(str, get_args(kind)))
        raise argparse.ArgumentTypeError(f"got {text!r}; {near(text, choices, listed=True)}")
    if kind is float:
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):  # numbers to Python; each option says what it wants
            return float(text)
        try:
            return float(number("it", text, low=-math.inf))
        except InputError:
            raise argparse.ArgumentTypeError(f"got {text!r}; want a number, such as 0.03 or 8/255") from None
    if kind is int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"got {text!r}; want an integer") from None
        if not fits_int64(value):
            raise argparse.ArgumentTypeError(f"got {text!r}; want an integer of at most 64 bits")
        return value
    return kind(text)


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    return {int: "N", float: "NUMBER", Path: "PATH"}.get(kind, "NAME")


def _default(value: Any, about: str) -> str:
    """What the help adds of a default, where the text does not say it."""
    if value is None or value is MISSING or value is False or value == () or "by default" in about.lower():
        return ""
    text = " ".join(map(str, value)) if isinstance(value, tuple) else "on" if value is True else str(value)
    return f" (default: {text})"


def _shown(hint: Any) -> Shown:
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((mark for mark in marks if isinstance(mark, Shown)), Shown())


def _flag(name: str, how: Shown) -> str:
    return "--" + (how.name or name).replace("_", "-")


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
