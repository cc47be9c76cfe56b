"""The `moored` command: finds the command's module, runs it, and turns its errors into one line."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO, cast

from moored import __version__
from moored.report.place import is_stdout

from .errors import FAILED, NOT_POSSIBLE_HERE, USAGE, CommandError
from .stdout import Stdout

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
    if sys.stderr is None:  # closed: print() would talk on stdout instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    stdout = None
    try:
        named = _named_command(words)
        if named == "run" and words[1:] not in (["--help"], ["-h"]):
            importlib.import_module(f"{__name__}.run").pass_on(words[1:])
        if sys.stdout is None:
            raise CommandError("stdout is closed; send it somewhere, as in >/dev/null", FAILED)
        stdout = Stdout(sys.stdout)
        with contextlib.redirect_stdout(cast("TextIO", stdout)):
            try:
                return _run(named, words)
            finally:
                stdout.finish()
    except CommandError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        if stdout:
            stdout.give_up()  # the reader (head, less) has gone: nothing to say
        return FAILED
    except OSError as error:
        why = error.strerror or str(error)
        if stdout and error is stdout.failed:
            stdout.give_up()
            return complain(f"cannot write to stdout: {why}", FAILED)
        return complain(f"{error.filename}: {why}" if error.filename else why, FAILED)


def _named_command(words: Sequence[str]) -> str | None:
    named = words[0] if words and not words[0].startswith("-") else None
    if named and named not in COMMANDS:
        raise CommandError(
            f"there is no command {named!r}; there are: {', '.join(COMMANDS)}", USAGE
        )
    return named


def _run(named: str | None, words: Sequence[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"moored {__version__}")
        return 0
    args = make_parser(named).parse_args(words)
    document = getattr(args, "json", None)
    if document is not None and is_stdout(document):
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the document alone
            return int(args.run(args))
    return int(args.run(args))


def complain(message: str, exit_code: int) -> int:
    """Say why it did not work, and pass the exit code on."""
    with contextlib.suppress(OSError):
        print(f"moored: {message}", file=sys.stderr)
    return exit_code
