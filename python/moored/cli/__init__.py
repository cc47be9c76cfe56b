"""The `moored` command: finds the command's module, runs it, and turns its errors into one line."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from moored import __version__

from .errors import NOT_POSSIBLE_HERE, USAGE, CommandError

# A command is a module moored.cli.<name> with HELP, add_arguments and run. It is imported only when
# it is named, so that a command which lacks something here harms no other.
COMMANDS = ("run", "lab", "bench", "torture")

INTERRUPTED = 130


class Command(Protocol):
    """What a command's module offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code is returned."""


def load(name: str) -> Command:
    """Import one command's module."""
    return cast(Command, importlib.import_module(f"{__name__}.{name}"))


def make_parser(named: str | None) -> argparse.ArgumentParser:
    """Build the parser for the named command, or for all when none is."""
    parser = argparse.ArgumentParser(
        prog="moored", description="Native threads enter Python: cheap, safe at shutdown."
    )
    parser.add_argument("--version", action="version", version=f"moored {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in [named] if named else COMMANDS:
        try:
            command = load(name)
        except ImportError as error:
            if named:
                raise CommandError(f"{name} cannot run here: {error}", NOT_POSSIBLE_HERE) from error
            commands.add_parser(name, help=f"(not available here: {error})")
            continue
        own = commands.add_parser(name, help=command.HELP, description=command.HELP)
        own.set_defaults(run=command.run)
        command.add_arguments(own)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    named = words[0] if words and not words[0].startswith("-") else None
    if named and named not in COMMANDS:
        return complain(f"there is no command {named!r}; there are: {', '.join(COMMANDS)}", USAGE)
    if words[:1] == ["--version"]:
        print(f"moored {__version__}")
        return 0
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # in order with stderr, also in a file
        if named == "run" and words[1:] not in (["--help"], ["-h"]):
            importlib.import_module(f"{__name__}.run").pass_on(words[1:])
        args = make_parser(named).parse_args(words)
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except CommandError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing to say, also for Python's own flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def complain(message: str, exit_code: int) -> int:
    """Say why it did not work, and pass the exit code on."""
    print(f"moored: {message}", file=sys.stderr)
    return exit_code
