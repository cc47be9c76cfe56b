"""moored bench callbacks: what a callback from a native thread costs, binding by binding."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench import callbacks, verdict
from moored_lab.bench.bindings import BINDINGS
from moored_lab.bench.goals import Goal
from moored_lab.bench.interpreter import Interpreter
from moored_lab.bench.turns import ASKS, CHURN, EMPTY, LOGS, MANY, Plan, Row
from moored_lab.commands import comparing, outputs
from moored_lab.report import table

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
    keys = ",".join(one.key for one in BINDINGS)
    add("--bindings", metavar="NAMES", default=keys, help="comma-separated (%(default)s)")
    add("--rounds", type=int, default=default.rounds, help="interleaved rounds (%(default)s)")
    add(
        "--full",
        action="store_true",
        help=f"{FULL_CHURN:,} threads of one callback, not {default.churn_threads:,}",
    )
    comparing.add_arguments(parser, "extensions")


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure every interpreter, print, and judge by the goals."""
    outputs.check_rounds(args.rounds)
    known = {one.key: one for one in BINDINGS}
    bindings = [
        known[key] for key in comparing.named("--bindings", args.bindings, "binding", known)
    ]
    outputs.check(args)
    if "MOORED_RUN" in os.environ:
        raise CommandError(
            "bench callbacks measures stock Pythons too: start it without moored run",
            ExitCode.USAGE,
        )
    plan = Plan(args.rounds, FULL_CHURN if args.full else Plan.churn_threads)

    def measure(interpreter: Interpreter) -> tuple[list[Row], list[Goal]]:
        rows = callbacks.run(interpreter, args.cache, bindings, plan)
        return rows, verdict.judge(interpreter, rows)

    def show(interpreter: Interpreter, rows: Sequence[Row]) -> None:
        show_tables(interpreter, rows, plan)

    return comparing.compare(args, "bench callbacks", measure, show)


def show_tables(interpreter: Interpreter, rows: Sequence[Row], plan: Plan) -> None:
    """Print the tables of one interpreter."""
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
