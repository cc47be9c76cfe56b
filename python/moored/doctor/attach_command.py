"""moored doctor attach: records a process that is already running, and says what it pays."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys

from moored.cli.errors import CommandError, ExitCode

from . import answer, capture
from .attaching import PATIENCE_S, Attached, ended_by_signals
from .findings import find_all

HELP = "record a process that is already running (Python 3.14 and later), and say what it pays"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `moored doctor attach`."""
    parser.epilog = (
        "Ctrl-C ends the recording, not the process. The answer comes on stdout; the process goes "
        "on as it was before."
    )
    add = parser.add_argument
    add("pid", metavar="PID", type=int, help="a process that runs Python")
    add("-o", "--output", metavar="FILE", help="keep the capture, for report")
    add(
        "-d",
        "--duration",
        metavar="SECONDS",
        type=float,
        help="record for so long (until Ctrl-C, or the end of the process)",
    )
    add_ways(parser)
    add("--strict", action="store_true", help="exit 4 when there are findings")


def add_ways(parser: argparse.ArgumentParser) -> None:
    """Declare how a process is asked."""
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=PATIENCE_S,
        help="how long its main thread has to answer (%(default)g)",
    )
    parser.add_argument(
        "--wake",
        action="store_true",
        help="stop the process for an instant, so that a main thread in epoll or poll answers",
    )


def check(args: argparse.Namespace, asker: str = "doctor") -> None:
    """Raise the one line for arguments that are not possible."""
    for name, seconds in (("-d", getattr(args, "duration", None)), ("--timeout", args.timeout)):
        if seconds is not None and not 0 < seconds < 1e7:
            raise CommandError(
                f"{asker}: {name} {seconds:g} is not possible: give seconds, more than 0",
                ExitCode.USAGE,
            )
    if args.pid <= 0:
        raise CommandError(f"{asker}: there is no process {args.pid}", ExitCode.USAGE)


def run(args: argparse.Namespace) -> int:
    """Record, then show the answer."""
    with ended_by_signals(), Attached(args.pid, args.timeout, args.wake) as attached:
        until = "Ctrl-C ends that" if args.duration is None else f"for {args.duration:g} s"
        with contextlib.suppress(KeyboardInterrupt):
            print(f"recording process {args.pid}: {until}", file=sys.stderr)
            while attached.watch(args.duration) and args.duration is None:
                pass
        with contextlib.suppress(KeyboardInterrupt):
            attached.end()
        recording = capture.read(attached.path)
        if args.output is not None:
            shutil.copyfile(attached.path, args.output)
    print(answer.answer(recording, answer.look_of(sys.stdout)))
    if args.output is not None:
        more = f"moored doctor report {args.output} -f html -o {args.output}.html"
        print(f"recorded in {args.output}; more: {more}", file=sys.stderr)
    return ExitCode.MISSED if args.strict and find_all(recording) else ExitCode.FINE
