"""moored doctor report: shows a recording, in a terminal or as what other tools read."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable

from moored.cli.errors import CommandError, ExitCode

from . import answer, capture, outputs
from .findings import find_all
from .recording import Recording

HELP_REPORT = "show what was recorded: what native threads pay to enter Python, and the remedy"

TERMINAL = "terminal"

# The module of each format, which is imported when it is asked for.
EXPORTS = {
    "html": "moored.doctor.page",
    "json": "moored.doctor.export_json",
    "firefox": "moored.doctor.export_firefox",
    "collapsed": "moored.doctor.export_collapsed",
    "speedscope": "moored.doctor.export_speedscope",
}

FOR_PROGRAMS = {
    "html": "a browser",
    "firefox": "the Firefox profiler",
    "speedscope": "speedscope",
}
"""What is for no terminal, and what opens it."""


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `moored doctor report`."""
    add = parser.add_argument
    add("file", metavar="FILE", help="what moored doctor has recorded of a process")
    add(
        "-f",
        "--format",
        choices=(TERMINAL, *EXPORTS),
        default=TERMINAL,
        help="html is one page for a browser, firefox is for profiler.firefox.com, "
        "collapsed for flame graph tools (%(default)s)",
    )
    add("-o", "--output", metavar="FILE", default="-", help="write it there; - is stdout")
    add("--strict", action="store_true", help="exit with 4 when there are findings")


def run_report(args: argparse.Namespace) -> int:
    """Read the recording and show it."""
    to_stdout = outputs.is_stdout(args.output)
    if args.format in FOR_PROGRAMS and to_stdout and sys.stdout.isatty():
        raise CommandError(
            f"report: -f {args.format} is for {FOR_PROGRAMS[args.format]}: "
            "say where it goes, with -o FILE",
            ExitCode.USAGE,
        )
    recording = capture.read(args.file)
    outputs.write(args.output, _shown(recording, args.format, to_stdout))
    if not to_stdout:
        print(f"{args.format}: {args.output}", file=sys.stderr)
    if args.strict and find_all(recording):
        return ExitCode.MISSED
    return ExitCode.FINE


def _shown(recording: Recording, form: str, to_stdout: bool) -> str:
    if form == TERMINAL:
        return answer.answer(recording, answer.look_of(sys.stdout) if to_stdout else None)
    export: Callable[[Recording], str] = importlib.import_module(EXPORTS[form]).export
    return export(recording)
