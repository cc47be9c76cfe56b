"""The `moored` command: finds the command's module, runs it, and turns its errors into one line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO, cast

from moored import __version__

from . import registry, run
from .errors import CommandError, ExitCode
from .stdout import Stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:  # closed: print() would talk on stdout instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    stdout = None
    try:
        if words[:1] == ["run"] and words[1:] not in (["--help"], ["-h"]):
            run.pass_on(words[1:])
        commands = registry.commands()
        registry.named_in(commands, words)
        if sys.stdout is None:
            raise CommandError("stdout is closed; send it somewhere, as in >/dev/null")
        stdout = Stdout(sys.stdout)
        with contextlib.redirect_stdout(cast("TextIO", stdout)):
            try:
                return _run(commands, words)
            finally:
                stdout.finish()
    except CommandError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        if stdout:
            stdout.give_up()  # the reader (head, less) has gone: nothing to say
        return ExitCode.FAILED
    except OSError as error:
        why = error.strerror or str(error)
        if stdout and error is stdout.failed:
            stdout.give_up()
            return complain(f"cannot write to stdout: {why}")
        return complain(f"{error.filename}: {why}" if error.filename else why)


def _run(commands: Mapping[str, str], words: Sequence[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"moored {__version__}")
        return ExitCode.FINE
    named = registry.named_in(commands, words)
    reads = registry.reader_of_words(commands, named) if named is not None else None
    if reads is not None:
        return int(reads(list(words[1:])))
    parser = argparse.ArgumentParser(
        prog="moored", description="Native threads enter Python: cheap, safe at shutdown."
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    registry.declare(parser, commands, words)
    arguments = parser.parse_args(words)
    return int(arguments.run(arguments))


def complain(message: str, exit_code: ExitCode = ExitCode.FAILED) -> int:
    """Say why it did not work, and pass the exit code on."""
    with contextlib.suppress(OSError):
        print(f"moored: {message}", file=sys.stderr)
    return exit_code
