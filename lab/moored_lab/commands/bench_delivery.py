"""moored bench delivery: how native events reach Python, moored's channels and their peers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench import delivery, delivery_verdict
from moored_lab.bench.delivery import OPEN, SATURATION, WAYS, Plan, Row
from moored_lab.bench.goals import Goal
from moored_lab.bench.interpreter import Interpreter
from moored_lab.commands import comparing, outputs
from moored_lab.report import table

HELP = "how native events reach Python: channels against attaching, asyncio, queues and sockets"

COSTS = (
    table.Column("load", "what", names=True),
    table.Column("payload", "payload", names=True),
    table.Column("senders", "senders", names=True),
    table.Column("way", "way", names=True),
    table.Column("ns_min", "min ns", 1),
    table.Column("ns_median", "median ns", 1),
    table.Column("ns_p10", "10 %", 1),
    table.Column("ns_p90", "90 %", 1),
)
FULL = (
    table.Column("way", "way", names=True),
    table.Column("payload", "payload", names=True),
    table.Column("senders", "senders", names=True),
    table.Column("events_per_s", "events/s"),
    table.Column("events_per_s_p10", "10 %"),
    table.Column("events_per_s_p90", "90 %"),
    table.Column("times_ensure", "x Ensure", 2),
    table.Column("cpu_ns", "CPU ns"),
    table.Column("note", "note"),
)
CALM = (
    table.Column("way", "way", names=True),
    table.Column("rate_per_s", "events/s", names=True),
    table.Column("cpu_percent", "CPU %", 1),
    table.Column("cpu_percent_p10", "10 %", 1),
    table.Column("cpu_percent_p90", "90 %", 1),
    table.Column("cpu_of_ensure", "x Ensure", 2),
    table.Column("above_base_us", "above base, us an event", 2),
    table.Column("above_base_us_p10", "10 %", 2),
    table.Column("above_base_us_p90", "90 %", 2),
    table.Column("p50_us", "p50 us"),
    table.Column("p99_us", "p99 us"),
    table.Column("note", "note"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    default = Plan()
    add = parser.add_argument
    add("--ways", metavar="NAMES", default=",".join(WAYS), help="comma-separated (%(default)s)")
    add("--rounds", type=int, default=default.rounds, help="interleaved rounds (%(default)s)")
    add("--seconds", type=float, default=default.seconds, help="a way and round (%(default)g)")
    comparing.add_arguments(parser, "senders")


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure every interpreter, print, and judge by the goals."""
    outputs.check_rounds(args.rounds)
    if not (math.isfinite(args.seconds) and 0.0 < args.seconds <= 60.0):
        raise CommandError(
            f"--seconds {args.seconds:g}: give more than 0 and at most 60", ExitCode.USAGE
        )
    ways = comparing.named("--ways", args.ways, "way", WAYS)
    plan = Plan(args.rounds, args.seconds, tuple(ways))
    outputs.check(args)

    def measure(interpreter: Interpreter) -> tuple[list[Row], list[Goal]]:
        try:
            rows = delivery.run(interpreter, args.cache, plan)
        except delivery.CannotMeasure as error:
            raise CommandError(f"bench delivery: {error}", ExitCode.NOT_POSSIBLE_HERE) from error
        return rows, delivery_verdict.judge(rows)

    def show(interpreter: Interpreter, rows: Sequence[Row]) -> None:
        show_tables(interpreter.version, rows, plan)

    return comparing.compare(args, "bench delivery", measure, show)


def show_tables(version: str, rows: Sequence[Row], plan: Plan) -> None:
    """Print the tables of one interpreter."""
    python = f"CPython {version}"
    costs = [row for row in rows if row["load"] not in (SATURATION, OPEN)]
    table.show(COSTS, costs, f"{python}, CPU of one send, and of one event in a batch")
    print()
    full = [row for row in rows if row["load"] == SATURATION]
    title = f"{python}, at most 1024 events on their way, an empty handler, {plan.rounds} rounds"
    table.show(FULL, full, title)
    print()
    calm = [row for row in rows if row["load"] == OPEN]
    table.show(CALM, calm, f"{python}, a steady rate, a handler of 20 us (5,000/s) or 8 us")
    print()
