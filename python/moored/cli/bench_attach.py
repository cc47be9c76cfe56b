"""moored bench attach: what each way into Python costs, against CPython's own calls."""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import dataclass
from typing import Any

from moored.cli import outputs
from moored.cli.lab_cost import check_rounds, not_built
from moored.lab.rounds import Samples, measure, quiet_cpu, spread
from moored.report import document, progress, table

HELP = "what each way into Python costs, from a native thread, against CPython's own calls"

RAW = "raw"
STRICT_MISSED = 4

NAMES = {
    RAW: "PyEval_RestoreThread + call + PyEval_SaveThread (raw)",
    "raw_in_a_guard": "the same in an interpreter guard of its own (3.15)",
    "moored_kept": "moored attach, kept + call + end",
    "moored_temporary": "moored attach, temporary + call + end",
    "moored_side": "moored attach, side + call + end",
    "moored_borrowed": "moored attach, borrowed + call + end",
    "ensure": "PyGILState_Ensure + call + Release (temporary state)",
    "keep_thread_ensure": "the same on a thread with moored.keep_thread()",
    "ensure_nested": "PyGILState_Ensure + call + Release, nested",
    "moored_kept_alone": "moored attach, kept + end, no call",
    "moored_nested_alone": "moored attach + end, nested, no call",
}

COLUMNS = (
    table.Column("name", "what"),
    table.Column("ns_min", "min ns", 1),
    table.Column("ns_median", "median ns", 1),
    table.Column("ratio", "x raw", 2),
    table.Column("ratio_p10", "10 %", 2),
    table.Column("ratio_p90", "90 %", 2),
    table.Column("note", "note"),
)


@dataclass(frozen=True)
class Goal:
    """A promise and what was measured of it."""

    name: str
    measured: float
    limit: float
    at_least: bool = False
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the promise holds in this run."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def __str__(self) -> str:
        """Say it in one line."""
        bound = "at least" if self.at_least else "at most"
        word = "met" if self.met else "missed"
        return f"{word}: {self.name}: {self.measured:.2f} {self.unit} ({bound} {self.limit:g})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--rounds", type=int, default=200, help="interleaved rounds (200)")
    outputs.add_json(parser)
    parser.add_argument("--strict", action="store_true", help="exit 4 when a goal is missed")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and judge by the goals."""
    check_rounds(args.rounds)
    outputs.check(args)
    try:
        from moored import _cost
    except ImportError as error:
        raise not_built(error) from error
    with progress.bar() as bar:
        bench = _cost.entries(_only_returns, quiet_cpu())
        measured = measure(bench, args.rounds, bar)
    rows = rows_of(measured, dict(bench.refusals))
    found = goals(measured)
    python = platform.python_version()
    table.show(COLUMNS, rows, f"CPython {python}, one native thread, {args.rounds} rounds")
    print()
    for goal in found:
        print(goal)
    described = document.describe(document.command_line(), rows)
    described["goals"] = [
        {"name": goal.name, "measured": round(goal.measured, 3), "limit": goal.limit}
        | {"unit": goal.unit, "met": goal.met}
        for goal in found
    ]
    outputs.write(args, described)
    return STRICT_MISSED if args.strict and not all(goal.met for goal in found) else 0


def rows_of(measured: dict[str, Samples], refusals: dict[str, str]) -> list[dict[str, Any]]:
    """One row for each way; a way that is refused here has a note instead of figures."""
    raw = measured[RAW]
    rows: list[dict[str, Any]] = []
    for key, name in NAMES.items():
        if key in refusals:
            rows.append({"name": name, "key": key, "note": f"refused: {refusals[key]}"})
            continue
        low, high = spread(ratios(measured[key], raw))
        rows.append(
            {"name": name, "key": key}
            | measured[key].as_row()
            | {"ratio": round(measured[key].median / raw.median, 3)}
            | {"ratio_p10": round(low, 3), "ratio_p90": round(high, 3), "note": ""}
        )
    return rows


def ratios(samples: Samples, base: Samples) -> list[float]:
    """Give the ratio of each round: both sides of it saw the same moment of the machine."""
    return [ns / base_ns for ns, base_ns in zip(samples.ns, base.ns, strict=True)]


def goals(measured: dict[str, Samples]) -> list[Goal]:
    """Judge what moored promises about its price, by ratios of medians."""
    raw, kept = measured[RAW].median, measured["moored_kept"].median
    found = [
        Goal("moored attach + call + end against raw", kept / raw, 1.15),
        Goal("nested attach", measured["moored_nested_alone"].median, 10, unit="ns"),
    ]
    if sys.version_info >= (3, 11):
        dearer = measured["ensure"].median / kept
        found.append(
            Goal("Ensure + call + Release against moored attach", dearer, 50, at_least=True)
        )
    return found


def _only_returns() -> None:
    """Be the smallest callback that still is a Python frame."""
