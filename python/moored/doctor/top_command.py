"""moored top: what native threads pay in a process, as it runs."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from moored.cli.errors import CommandError, ExitCode

from . import attach_command, target, top
from .attaching import Attached, ended_by_signals

HELP = "what native threads pay to enter Python in a process, second by second, as it runs"


def run_words(words: Sequence[str]) -> int:
    """Run what the words behind `moored top` say; return the exit code."""
    parser = argparse.ArgumentParser(prog="moored top", description=HELP, allow_abbrev=False)
    parser.epilog = (
        "A process that moored doctor runs or has attached to is looked on at; another one is "
        "attached to meanwhile, which needs Python 3.14. On a terminal, and with moored[top] "
        "installed, it is a table that sorts."
    )
    add = parser.add_argument
    add("pid", metavar="PID", type=int, help="a process that runs Python")
    add("--interval", metavar="SECONDS", type=float, default=1.0, help="(%(default)g)")
    add("-n", "--turns", type=int, help="end after so many (until Ctrl-C)")
    add("--plain", action="store_true", help="plain text, also on a terminal")
    attach_command.add_ways(parser)
    args = parser.parse_args(list(words))
    if not 0.01 <= args.interval <= 3600 or (args.turns is not None and args.turns < 1):
        raise CommandError(
            "top: give an interval of 0.01 to 3600 seconds, and 1 turn or more", ExitCode.USAGE
        )
    attach_command.check(args, "top")
    with contextlib.suppress(KeyboardInterrupt), _recorded(args) as (path, attached):
        watch = top.Watch(args.pid, path, attached)
        if not args.plain and _can_draw():
            from . import top_screen

            return top_screen.show(watch, args.interval, args.turns)
        return top.show(watch, args.interval, args.turns)
    return ExitCode.FINE


def _can_draw() -> bool:
    on_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    return on_terminal and importlib.util.find_spec("textual") is not None


@contextlib.contextmanager
def _recorded(args: argparse.Namespace) -> Iterator[tuple[Path, Attached | None]]:
    """Give the capture of the process, which is attached to where it is not recorded."""
    its = target.look(args.pid, "top")
    path = its.capture()
    if path is not None:
        yield path, None
        return
    python = its.python()
    if python is not None and python.version < target.FIRST:
        raise CommandError(
            f"top: process {args.pid} is not recorded; start it with: {its.recorded_command}",
            ExitCode.NOT_POSSIBLE_HERE,
        )
    with ended_by_signals(), Attached(args.pid, args.timeout, args.wake, "top") as attached:
        print(f"recording process {args.pid} until this ends", file=sys.stderr)
        yield attached.path, attached
