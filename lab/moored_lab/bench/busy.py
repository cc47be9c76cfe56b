"""Busy: what a native thread waits for the GIL of a main thread that computes, and what main pays.

Main's progress is counted in rounds of a loop, as a share of what it makes alone in the same turn:
that is what a short wait is paid with.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moored_lab import _cost
from moored_lab.bench.goals import Goal
from moored_lab.bench.rounds import spread
from moored_lab.report.progress import Progress

Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """How the thread enters, and the switch interval and the budget meanwhile."""

    name: str
    how: str
    switch_interval_s: float = 0.005
    budget: float = 0.1


STOCK, KEPT, URGENT, NARROW = "stock", "kept", "urgent", "urgent 2%"
WAYS = {
    STOCK: Way("PyGILState_Ensure", "ensure"),
    KEPT: Way("moored attach, kept", "kept"),
    "interval 1ms": Way("kept, sys.setswitchinterval(1e-3)", "kept", 1e-3),
    "interval 100us": Way("kept, sys.setswitchinterval(1e-4)", "kept", 1e-4),
    "interval 10us": Way("kept, sys.setswitchinterval(1e-5)", "kept", 1e-5),
    URGENT: Way("moored attach, urgent", "urgent"),
    "urgent 100%": Way("moored attach, urgent, budget 100 %", "urgent", budget=1.0),
    NARROW: Way("moored attach, urgent, budget 2 %", "urgent", budget=0.02),
    "interrupt": Way("moored.Channel, interrupt", "interrupt"),
}
RATES = (100.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0)


@dataclass(frozen=True)
class Turn:
    """One way at one rate, once."""

    visits: int
    wait_p50_us: float
    wait_p99_us: float
    progress: float
    """Of main alone, in the same round."""


def run(
    ways: Sequence[str], rates: Sequence[float], seconds: float, rounds: int, progress: Progress
) -> list[Row]:
    """Measure every way at every rate, interleaved; one row for each."""
    turns: dict[tuple[str, float], list[Turn]] = {}
    refusals: dict[str, str] = {}
    steps = rounds * len(rates) * len(ways)
    interval = sys.getswitchinterval()
    try:
        for turn in range(rounds):
            for rate_at, rate in enumerate(rates):
                for way_at, key in enumerate(ways):
                    done = (turn * len(rates) + rate_at) * len(ways) + way_at
                    progress(done / steps, f"round {turn + 1} of {rounds}: {key}, {rate:,.0f}/s")
                    if key in refusals:
                        continue
                    try:
                        one = _turn(WAYS[key], rate, seconds)
                    except RuntimeError as error:
                        refusals[key] = str(error)
                        continue
                    turns.setdefault((key, rate), []).append(one)
    finally:
        sys.setswitchinterval(interval)
        _cost.set_urgent_budget(0.1)
    rows = []
    for rate in rates:
        for key in ways:
            named = {"rate_per_s": round(rate), "key": key, "name": WAYS[key].name}
            if key in refusals:
                rows.append(named | {"note": f"refused: {refusals[key]}"})
            else:
                rows.append(named | _row(turns[key, rate], seconds) | {"note": ""})
    return rows


def _turn(way: Way, rate: float, seconds: float) -> Turn:
    """Let the thread come while main computes; before it and after it, main alone."""
    sys.setswitchinterval(way.switch_interval_s)
    _cost.set_urgent_budget(way.budget)
    alone = _compute(seconds / 4)
    visits = _cost.Visits(way.how, rate, _only_returns)
    try:
        beside = _compute(seconds) / seconds
    finally:
        visits.stop()
    alone += _compute(seconds / 4)
    told = visits.waits()
    return Turn(
        int(told["count"]), told["p50_us"], told["p99_us"], beside / (alone / (seconds / 2))
    )


def _compute(seconds: float) -> int:
    """Run Python for so long; give the rounds of the loop."""
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end:
        for _ in range(200):
            pass
        done += 1
    return done


def _only_returns() -> None:
    """Be the smallest callback that still is a Python frame."""


def _row(turns: Sequence[Turn], seconds: float) -> Row:
    row: Row = {}
    for key in ("wait_p50_us", "wait_p99_us", "progress"):
        values = [float(getattr(one, key)) for one in turns]
        low, high = spread(values)
        row |= {
            key: round(statistics.median(values), 3),
            f"{key}_p10": round(low, 3),
            f"{key}_p90": round(high, 3),
        }
    row["visits_per_s"] = round(statistics.median(one.visits / seconds for one in turns))
    return row


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Judge what urgent attaches promise, by the rows that were measured."""
    found = []
    for row in rows:
        if "progress" not in row:
            continue
        named = f"{row['name']}, {row['rate_per_s']:,}/s, busy main"
        kept = 100 * row["progress"]
        if row["key"] == URGENT and row["rate_per_s"] == 1_000:
            found.append(Goal(f"{named}: median wait", row["wait_p50_us"], 15, unit="us"))
            found.append(Goal(f"{named}: p99", row["wait_p99_us"], 100, unit="us"))
            found.append(Goal(f"{named}: main's progress", kept, 95, at_least=True, unit="%"))
        if row["rate_per_s"] == 10_000 and row["key"] in (URGENT, NARROW):
            limit = 85 if row["key"] == URGENT else 97
            found.append(Goal(f"{named}: main's progress", kept, limit, at_least=True, unit="%"))
    return found
