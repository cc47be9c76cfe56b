"""moored lab cost: where the price of a temporary thread state comes from."""

from __future__ import annotations

import argparse
import platform

from moored.cli.errors import ExitCode
from moored_lab.bench import cost
from moored_lab.commands import outputs
from moored_lab.report import cost_chart, document, progress, table

HELP = "where the price of a temporary thread state comes from: TLS, malloc, the GIL, or what?"

COLUMNS = (
    table.Column("name", "what"),
    table.Column("ns_median", "median ns", 1),
    table.Column("ns_min", "min ns", 1),
    table.Column("ns_p10", "10 %", 1),
    table.Column("ns_p90", "90 %", 1),
    table.Column("page_faults", "page faults", 2),
)
SHARE_COLUMNS = (
    table.Column("part", "part of a temporary state + Python frame"),
    table.Column("ns_median", "ns", 1),
    table.Column("percent", "share %", 1),
    table.Column("note", "note"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--rounds", type=int, default=100, help="interleaved rounds (100)")
    outputs.add_json(parser)
    outputs.add_chart(parser)


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for."""
    outputs.check_rounds(args.rounds)
    outputs.check(args)
    with progress.bar() as bar:
        result = cost.run(args.rounds, bar)
    rows = result.rows()
    measured = [row for row in rows if "share" not in row]
    shares = [
        {**row, "percent": None if row["share"] is None else 100 * row["share"]}
        for row in rows
        if "share" in row
    ]
    described = document.describe(document.command_line(), rows)
    python = platform.python_version()
    try:
        outputs.write(args, described, "cost", cost_chart.draw)
    finally:
        table.show(COLUMNS, measured, f"CPython {python}, per operation, {args.rounds} rounds")
        print()
        table.show(SHARE_COLUMNS, shares)
        print(f"\n{result.verdict()}")
    return ExitCode.FINE
