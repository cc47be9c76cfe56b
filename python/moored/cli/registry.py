"""The registry: every command of `moored`, those that other distributions plug in included."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from types import ModuleType

from .errors import CommandError, ExitCode

# A command is a module with HELP, add_arguments(parser) and run(arguments), which returns the exit
# code; or, for a group of commands, with HELP and COMMANDS; or with HELP and run_words(words), when
# it reads its own words, for they end with a program's. It is imported only when it is named,
# so that a command which lacks something here harms no other.
OWN = {
    "run": "moored.cli.run",
    "doctor": "moored.doctor.commands",
    "top": "moored.doctor.top_command",
}
ENTRY_POINTS = "moored.commands"
OF_THE_LAB = ("lab", "bench", "torture")
LAB_IS_MISSING = (
    "it comes with moored-lab, which is not installed: in a checkout of moored, pip install ./lab"
)


def commands() -> dict[str, str]:
    """Return the module of each command that is installed, by the command's name."""
    plugged = {one.name: one.value for one in entry_points(group=ENTRY_POINTS)}
    return OWN | {name: plugged[name] for name in sorted(plugged, key=_place) if name not in OWN}


def _place(name: str) -> tuple[int, str]:
    """Order the lab's commands as they are listed here, and others by name after them."""
    return (OF_THE_LAB.index(name) if name in OF_THE_LAB else len(OF_THE_LAB), name)


def named_in(modules: Mapping[str, str], words: Sequence[str]) -> str | None:
    """Return the command that `words` name; None for none, an error for one that there is not."""
    named = words[0] if words and not words[0].startswith("-") else None
    if named is None or named in modules:
        return named
    if named in OF_THE_LAB and not modules.keys().isdisjoint(OWN):  # not within a group
        raise CommandError(f"{named}: {LAB_IS_MISSING}", ExitCode.NOT_POSSIBLE_HERE)
    raise CommandError(
        f"there is no command {named!r}; there are: {', '.join(modules)}", ExitCode.USAGE
    )


def declare(
    parser: argparse.ArgumentParser, modules: Mapping[str, str], words: Sequence[str]
) -> None:
    """Declare the command that `words` name, or all of them when they name none."""
    named = named_in(modules, words)
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in [named] if named is not None else modules:
        try:
            module = importlib.import_module(modules[name])
        except ImportError as error:
            if named is not None:
                raise CommandError(
                    f"{name} cannot run here: {error}", ExitCode.NOT_POSSIBLE_HERE
                ) from error
            parsers.add_parser(name, help=f"(not available here: {error})")
            continue
        _declare_one(
            parsers.add_parser(name, help=module.HELP, description=module.HELP), module, words[1:]
        )


def reader_of_words(modules: Mapping[str, str], name: str) -> Callable[[list[str]], int] | None:
    """Return what reads the words behind a command by itself, if the command does that."""
    try:
        found: Callable[[list[str]], int] | None = getattr(
            importlib.import_module(modules[name]), "run_words", None
        )
    except ImportError:
        return None  # declare() says why
    return found


def _declare_one(parser: argparse.ArgumentParser, module: ModuleType, words: Sequence[str]) -> None:
    if hasattr(module, "run_words"):
        return  # it has been read, or all commands are listed
    if hasattr(module, "COMMANDS"):
        return declare(parser, module.COMMANDS, words)
    parser.set_defaults(run=module.run)
    module.add_arguments(parser)
