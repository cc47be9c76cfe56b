"""`moored lab`: the group of the lab's commands."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from moored.cli import Command

HELP = "measure the ways into Python on a real IO server"

COMMANDS = ("wakeup", "cost", "spin", "serve")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the lab's commands; one that cannot be imported here harms no other."""
    commands = parser.add_subparsers(metavar="LAB-COMMAND", required=True)
    for name in COMMANDS:
        try:
            command = cast("Command", importlib.import_module(f"moored.cli.lab_{name}"))
        except ImportError as error:
            commands.add_parser(name, help=f"(not available here: {error})").set_defaults(
                run=_Missing(name, error)
            )
            continue
        own = commands.add_parser(name, help=command.HELP, description=command.HELP)
        own.set_defaults(run=command.run)
        command.add_arguments(own)


def run(args: argparse.Namespace) -> int:
    """Never called: each of the lab's commands sets its own."""
    raise AssertionError("argparse requires one of the lab's commands")


class _Missing:
    """Stands in for a command that cannot be imported, and says so when it is called."""

    def __init__(self, name: str, why: ImportError) -> None:
        self._name, self._why = name, why

    def __call__(self, args: argparse.Namespace) -> int:
        from moored.cli.errors import NOT_POSSIBLE_HERE, CommandError

        raise CommandError(
            f"lab {self._name} cannot run here: {self._why}; "
            "install moored from its source tree with pip install .",
            NOT_POSSIBLE_HERE,
        )
