"""moored bench callbacks: what a callback from a native thread costs, binding by binding."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench import callbacks, goals, verdict
from moored_lab.bench.bindings import BINDINGS, Binding
from moored_lab.bench.interpreter import Interpreter, NoSuchPython, look_at
from moored_lab.bench.turns import ASKS, CHURN, EMPTY, LOGS, MANY, Plan, Row
from moored_lab.bench.workshop import CannotStart, default_cache
from moored_lab.commands import outputs
from moored_lab.report import document, table

HELP = "what a callback from a native thread costs through each binding, stock and with moored"

FULL_CHURN = 10_000

NAMED = (table.Column("binding", "binding", names=True), table.Column("way", "way", names=True))
NOTE = table.Column("note", "note")
ONE_THREAD = (
    *NAMED,
    table.Column("empty", "empty: ns"),
    table.Column("empty_min", "min"),
    table.Column("empty_faster", "x faster", 1),
    table.Column("empty_p10", "10 %", 1),
    table.Column("empty_p90", "90 %", 1),
    table.Column("empty_of_by_hand", "x by hand", 2),
    table.Column("asks", "asks: ns"),
    table.Column("asks_faster", "x faster", 1),
    table.Column("logs", "logs: ns"),
    table.Column("logs_faster", "x faster", 1),
    table.Column("locals", "locals"),
    NOTE,
)
OTHERWISE = (
    *NAMED,
    table.Column("many", f"{MANY} threads: ns"),
    table.Column("many_faster", "x faster", 1),
    table.Column("churn_us", "a thread: us", 1),
    table.Column("churn_faster", "x faster", 2),
    table.Column("resident_growth_kib", "growth KiB"),
    table.Column("states_left", "states left"),
)
PROGRAMS = (
    table.Column("program", "program", names=True),
    table.Column("way", "way", names=True),
    table.Column("ms_median", "ms", 2),
    table.Column("ms_more", "ms more", 2, signed=True),
    table.Column("ratio", "x stock", 3),
    table.Column("ratio_p10", "10 %", 3),
    table.Column("ratio_p90", "90 %", 3),
    NOTE,
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
    add(
        "--bindings",
        metavar="NAMES",
        default=",".join(one.key for one in BINDINGS),
        help="comma-separated (%(default)s)",
    )
    add("--rounds", type=int, default=default.rounds, help="interleaved rounds (%(default)s)")
    add(
        "--full",
        action="store_true",
        help=f"{FULL_CHURN:,} threads of one callback, not {default.churn_threads:,}",
    )
    add(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="where the extensions are built, and kept for the next time (%(default)s)",
    )
    outputs.add_json(parser)
    add("--strict", action="store_true", help="exit 4 when a goal is missed")


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure every interpreter, print, and judge by the goals."""
    outputs.check_rounds(args.rounds)
    bindings = named(args.bindings)
    outputs.check(args)
    if "MOORED_RUN" in os.environ:
        raise CommandError(
            "bench callbacks measures stock Pythons too: start it without moored run",
            ExitCode.USAGE,
        )
    plan = Plan(args.rounds, FULL_CHURN if args.full else Plan.churn_threads)
    rows: list[Row] = []
    found: list[goals.Goal] = []
    judged = []
    failed: list[OSError] = []
    try:
        interpreters = [look_at(python) for python in args.python or [sys.executable]]
        for interpreter in interpreters:
            own = callbacks.run(interpreter, args.cache, bindings, plan)
            judgement = verdict.judge(interpreter, own)
            with outputs.showing(failed):
                show(interpreter, own, judgement, plan)
            rows += own
            found += judgement
            judged += [goal.as_json() | {"python": interpreter.version} for goal in judgement]
    except NoSuchPython as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except CannotStart as error:
        raise CommandError(f"bench callbacks: {error}", ExitCode.NOT_POSSIBLE_HERE) from error
    versions = ", ".join(one.version for one in interpreters)
    described = document.describe(document.command_line(), rows, versions)
    outputs.write(args, described | {"goals": judged})
    if failed:
        raise failed[0]
    return outputs.judged(args, found)


def named(names: str) -> list[Binding]:
    """Find the bindings that were named."""
    known = {one.key: one for one in BINDINGS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise CommandError(
            f"--bindings {names}: there is no binding {unknown[0] if unknown else ''!r}; "
            f"there are: {', '.join(known)}",
            ExitCode.USAGE,
        )
    return [known[name] for name in dict.fromkeys(wanted)]


def show(
    interpreter: Interpreter, rows: Sequence[Row], judgement: Sequence[goals.Goal], plan: Plan
) -> None:
    """Print the tables of one interpreter, and the verdict."""
    lines = by_way(rows)
    version = f"CPython {interpreter.version}"
    table.show(ONE_THREAD, lines, f"{version}, one native thread, {plan.rounds} rounds")
    print()
    threads = f"{plan.churn_threads:,} threads that make one callback each"
    table.show(OTHERWISE, lines, f"{version}, {MANY} threads at once, and {threads}")
    print()
    programs = [row for row in rows if "program" in row]
    table.show(PROGRAMS, programs, f"{version}, programs without a callback")
    print()
    for goal in judgement:
        print(goal)
    refused = sum("not measured" in row["note"] for row in rows)
    if refused:
        print(f"not judged: {refused} that could not be measured; the notes say why")
    print()


def by_way(rows: Sequence[Row]) -> list[Row]:
    """Bring all that belongs to one binding and way into one line of the tables."""
    lines: dict[tuple[str, str], Row] = {}
    for row in rows:
        if "binding" not in row:
            continue
        key = (row["binding"], row["way"])
        line = lines.setdefault(key, {"binding": key[0], "way": key[1], "note": row["note"]})
        if row.get("callback") == CHURN:
            line["churn_us"] = row["ns_median"] / 1000
            line["churn_faster"] = row.get("times_faster")
            line["resident_growth_kib"] = row["resident_growth_kib"]
            line["states_left"] = row["states_left"]
        elif "callback" in row:
            line["locals"] = "survive" if row["locals_survive"] else "lost"
            name = {(EMPTY, 1): "empty", (ASKS, 1): "asks", (LOGS, 1): "logs"}.get(
                (row["callback"], row["threads"]), "many"
            )
            line[name] = row["ns_median"]
            line[f"{name}_min"] = row["ns_min"]
            line[f"{name}_faster"] = row.get("times_faster")
            line[f"{name}_p10"] = row.get("times_faster_p10")
            line[f"{name}_p90"] = row.get("times_faster_p90")
            line[f"{name}_of_by_hand"] = row.get("of_by_hand")
    return list(lines.values())
