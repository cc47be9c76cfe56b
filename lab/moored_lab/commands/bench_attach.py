"""moored bench attach: what each way into Python costs, against CPython's own calls."""

from __future__ import annotations

import argparse
import platform

from moored_lab import _cost
from moored_lab.bench import attach
from moored_lab.bench.rounds import measure, quiet_cpu
from moored_lab.commands import outputs
from moored_lab.report import document, progress, table

HELP = "what each way into Python costs, from a native thread, against CPython's own calls"

COLUMNS = (
    table.Column("name", "what"),
    table.Column("ns_min", "min ns", 1),
    table.Column("ns_median", "median ns", 1),
    table.Column("ratio", "x raw", 2),
    table.Column("ratio_p10", "10 %", 2),
    table.Column("ratio_p90", "90 %", 2),
    table.Column("note", "note"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--rounds", type=int, default=200, help="interleaved rounds (200)")
    outputs.add_json(parser)
    parser.add_argument("--strict", action="store_true", help="exit 4 when a goal is missed")


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure, print, and judge by the goals."""
    outputs.check_rounds(args.rounds)
    outputs.check(args)
    with progress.bar() as bar:
        bench = _cost.entries(_only_returns, quiet_cpu())
        measured = measure(bench, args.rounds, bar)
    rows = attach.rows_of(measured, dict(bench.refusals))
    found = attach.goals(measured)
    python = platform.python_version()
    described = document.describe(document.command_line(), rows)
    described["goals"] = [goal.as_json() for goal in found]
    try:
        outputs.write(args, described)
    finally:
        table.show(COLUMNS, rows, f"CPython {python}, one native thread, {args.rounds} rounds")
        print()
        for goal in found:
            print(goal)
    return outputs.judged(args, found)


def _only_returns() -> None:
    """Be the smallest callback that still is a Python frame."""
