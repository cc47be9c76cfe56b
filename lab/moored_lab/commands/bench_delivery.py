"""moored bench delivery: how native events reach Python, moored's channels and their peers."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench import delivery, delivery_verdict, goals
from moored_lab.bench.delivery import OPEN, SATURATION, WAYS, Plan, Row
from moored_lab.bench.interpreter import NoSuchPython, look_at
from moored_lab.bench.workshop import CannotBuild, CannotStart, default_cache
from moored_lab.commands import outputs
from moored_lab.report import document, table

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
    table.Column("p50_us", "p50 us"),
    table.Column("p99_us", "p99 us"),
    table.Column("note", "note"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    default = Plan()
    add = parser.add_argument
    add(
        "--python",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="interpreters to measure, each with moored installed in it (default: this one)",
    )
    add("--ways", metavar="NAMES", default=",".join(WAYS), help="comma-separated (%(default)s)")
    add("--rounds", type=int, default=default.rounds, help="interleaved rounds (%(default)s)")
    add("--seconds", type=float, default=default.seconds, help="a way and round (%(default)g)")
    add(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="where the senders are built, and kept for the next time (%(default)s)",
    )
    outputs.add_json(parser)
    add("--strict", action="store_true", help="exit 4 when a goal is missed")


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure every interpreter, print, and judge by the goals."""
    outputs.check_rounds(args.rounds)
    if not (math.isfinite(args.seconds) and 0.0 < args.seconds <= 60.0):
        raise CommandError(
            f"--seconds {args.seconds:g}: give more than 0 and at most 60", ExitCode.USAGE
        )
    plan = Plan(args.rounds, args.seconds, named(args.ways))
    outputs.check(args)
    rows: list[Row] = []
    found: list[goals.Goal] = []
    judged = []
    failed: list[OSError] = []
    try:
        interpreters = [look_at(python) for python in args.python or [sys.executable]]
        for interpreter in interpreters:
            own = delivery.run(interpreter, args.cache, plan)
            judgement = delivery_verdict.judge(own)
            with outputs.showing(failed):
                show(interpreter.version, own, judgement, plan)
            rows += own
            found += judgement
            judged += [goal.as_json() | {"python": interpreter.version} for goal in judgement]
    except NoSuchPython as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except (CannotStart, CannotBuild, delivery.CannotMeasure) as error:
        raise CommandError(f"bench delivery: {error}", ExitCode.NOT_POSSIBLE_HERE) from error
    versions = ", ".join(one.version for one in interpreters)
    described = document.describe(document.command_line(), rows, versions)
    outputs.write(args, described | {"goals": judged})
    if failed:
        raise failed[0]
    return outputs.judged(args, found)


def named(names: str) -> tuple[str, ...]:
    """Find the ways that were named."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in WAYS]
    if unknown or not wanted:
        raise CommandError(
            f"--ways {names}: there is no way {unknown[0] if unknown else ''!r}; "
            f"there are: {', '.join(WAYS)}",
            ExitCode.USAGE,
        )
    return tuple(dict.fromkeys(wanted))


def show(version: str, rows: Sequence[Row], judgement: Sequence[goals.Goal], plan: Plan) -> None:
    """Print the tables of one interpreter, and the verdict."""
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
    for goal in judgement:
        print(goal)
    refused = sum("not measured" in row.get("note", "") for row in rows)
    if refused:
        print(f"not judged: {refused} that could not be measured; the notes say why")
    print()
