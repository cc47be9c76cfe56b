"""moored bench state: what a kept thread state costs in memory."""

from __future__ import annotations

import argparse
import platform

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench import state
from moored_lab.commands import outputs
from moored_lab.report import document, progress, table

HELP = "what a kept thread state costs in memory, measured with many idle threads"

COLUMNS = (
    table.Column("name", "what"),
    table.Column("bytes_median", "bytes"),
    table.Column("bytes_p10", "10 %"),
    table.Column("bytes_p90", "90 %"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("--rounds", type=int, default=10, help="interleaved rounds (%(default)s)")
    add("--threads", type=int, default=1000, help="idle threads in each (%(default)s)")
    outputs.add_json(parser)


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    outputs.check_rounds(args.rounds)
    if not 1 <= args.threads <= 100_000:
        raise CommandError(f"--threads {args.threads}: give 1 to 100000", ExitCode.USAGE)
    outputs.check(args)
    try:
        with progress.bar() as bar:
            rows = state.rows_of(state.measure(args.rounds, args.threads, bar))
    except state.NotMeasured as error:
        raise CommandError(f"bench state: {error}") from error
    python = platform.python_version()
    title = f"CPython {python}, resident bytes, {args.threads:,} threads, {args.rounds} rounds"
    described = document.describe(document.command_line(), rows)
    try:
        outputs.write(args, described | {"threads": args.threads})
    finally:
        table.show(COLUMNS, rows, title)
    return ExitCode.FINE
