"""moored bench state: what a kept thread state costs in memory."""

from __future__ import annotations

import argparse
import platform

from moored.bench import state
from moored.cli import outputs
from moored.cli.errors import FAILED, USAGE, CommandError
from moored.cli.lab_cost import check_rounds, not_built
from moored.report import document, progress, table

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


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_rounds(args.rounds)
    if not 1 <= args.threads <= 100_000:
        raise CommandError(f"--threads {args.threads}: give 1 to 100000", USAGE)
    outputs.check(args)
    try:
        from moored import _cost  # noqa: F401
    except ImportError as error:
        raise not_built(error) from error
    try:
        with progress.bar() as bar:
            rows = state.rows_of(state.measure(args.rounds, args.threads, bar))
    except state.NotMeasured as error:
        raise CommandError(f"bench state: {error}", FAILED) from error
    python = platform.python_version()
    title = f"CPython {python}, resident bytes, {args.threads:,} threads, {args.rounds} rounds"
    described = document.describe(document.command_line(), rows)
    try:
        outputs.write(args, described | {"threads": args.threads})
    finally:
        table.show(COLUMNS, rows, title)
    return 0
