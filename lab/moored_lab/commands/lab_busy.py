"""moored lab busy: the GIL of a main thread that computes, and what main pays for a short wait."""

from __future__ import annotations

import argparse
import platform

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench import busy
from moored_lab.commands import outputs
from moored_lab.report import busy_chart, document, progress, table

HELP = "what a native thread waits for a busy main thread, way by way, and what main pays"

COLUMNS = (
    table.Column("rate_per_s", "wished/s", names=True),
    table.Column("name", "way", names=True),
    table.Column("visits_per_s", "came/s"),
    table.Column("wait_p50_us", "wait p50 us", 1),
    table.Column("wait_p99_us", "wait p99 us", 1),
    table.Column("progress", "main's progress", 3),
    table.Column("progress_p10", "10 %", 3),
    table.Column("progress_p90", "90 %", 3),
    table.Column("note", "note"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    rates = ",".join(f"{rate:g}" for rate in busy.RATES)
    parser.add_argument("--ways", default=",".join(busy.WAYS), help="(%(default)s)")
    parser.add_argument("--rates", default=rates, help="visits per second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="for each (%(default)g)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="exit 4 when a goal is missed")
    outputs.add_json(parser)
    outputs.add_chart(parser)


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure, print, draw and judge."""
    ways = [one.strip() for one in args.ways.split(",") if one.strip()]
    unknown = [one for one in ways if one not in busy.WAYS]
    if unknown or not ways:
        raise CommandError(
            f"--ways {args.ways}: there is no way {', '.join(unknown) or 'named'}; there are: "
            f"{', '.join(busy.WAYS)}",
            ExitCode.USAGE,
        )
    rates = _rates(args.rates)
    if not 0.02 <= args.seconds <= 600:
        raise CommandError(
            f"--seconds {args.seconds:g} is not possible: give 0.02 to 600", ExitCode.USAGE
        )
    outputs.check_rounds(args.rounds)
    outputs.check(args)
    with progress.bar() as bar:
        rows = busy.run(ways, rates, args.seconds, args.rounds, bar)
    found = busy.goals(rows)
    described = document.describe(document.command_line(), rows)
    described["goals"] = [goal.as_json() for goal in found]
    python = platform.python_version()
    try:
        outputs.write(args, described, "busy", busy_chart.draw)
    finally:
        table.show(COLUMNS, rows, f"CPython {python}, main computes, {args.rounds} rounds")
        print()
        for goal in found:
            print(goal)
    return outputs.judged(args, found)


def _rates(text: str) -> list[float]:
    try:
        rates = [float(one) for one in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0.1 <= rate <= 1e6 for rate in rates):
        raise CommandError(
            f"--rates {text}: give visits per second, from 0.1 to 1000000, as in 100,1000",
            ExitCode.USAGE,
        )
    return rates
