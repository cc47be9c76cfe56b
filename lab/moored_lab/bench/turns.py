"""Turns: the processes of one binding, one for each way, which are measured by turns."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moored_lab.bench.process import MeasuredProcess, ProcessFailed, turned
from moored_lab.bench.rounds import spread
from moored_lab.report.progress import Progress
from moored_lab.wakeup.process import LabFailed, LabMissing

Row = dict[str, Any]

STOCK = "stock"
INSTALL = "install"
KEEP_THREAD = "keep_thread"
RUN = "run"
BY_HAND = "by_hand"
WAYS = {
    STOCK: "stock",
    INSTALL: "install()",
    KEEP_THREAD: "keep_thread()",
    RUN: "moored run",
    BY_HAND: "kept by hand",
}

MANY = 8
"""How many threads "at once" are."""
EMPTY, ASKS, LOGS, CHURN = "empty", "current_thread", "logs", "churn"
TURNS = ((EMPTY, 1), (ASKS, 1), (LOGS, 1), (EMPTY, MANY))

ROUND_NS = 8_000_000
FIRST_CALLS = 50
CALLS = (20, 100_000)
CHURN_ROUND = 100


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 20
    churn_threads: int = 1_000


@dataclass
class Measured:
    """All rounds of one thing, for each way that could be measured: ns per call or thread."""

    ns: dict[str, list[float]] = field(default_factory=dict)

    def row(self, way: str) -> Row:
        """Give the figures of one way, and how many times faster than stock it was."""
        values = self.ns[way]
        low, high = spread(values)
        row: Row = {
            "ns_min": round(min(values), 1),
            "ns_median": round(statistics.median(values), 1),
            "ns_p10": round(low, 1),
            "ns_p90": round(high, 1),
        }
        if STOCK in self.ns:
            stock = self.ns[STOCK]
            each = [base / ns for base, ns in zip(stock, values, strict=True)]
            low, high = spread(each)
            row["times_faster"] = round(statistics.median(stock) / statistics.median(values), 3)
            row["times_faster_p10"], row["times_faster_p90"] = round(low, 3), round(high, 3)
        if BY_HAND in self.ns:
            by_hand = statistics.median(self.ns[BY_HAND])
            row["of_by_hand"] = round(statistics.median(values) / by_hand, 3)
        return row


@contextlib.contextmanager
def noted(failed: dict[str, str], way: str) -> Iterator[None]:
    """Take a failure of one way for the reason in its rows; the others go on."""
    try:
        yield
    except (ProcessFailed, LabFailed, LabMissing) as error:
        failed[way] = str(error)


class Group:
    """The processes of one binding, which take turns; one that fails takes part no more."""

    def __init__(self, callers: Mapping[str, MeasuredProcess], failed: dict[str, str]) -> None:
        self._all = callers
        self._failed = failed

    @property
    def callers(self) -> dict[str, MeasuredProcess]:
        """Those that still take part."""
        return {way: one for way, one in self._all.items() if way not in self._failed}

    def ask_all(self, do: str, event: str, **details: object) -> dict[str, dict[str, Any]]:
        """Ask each for the same, one after the other."""
        said = {}
        for way, caller in self.callers.items():
            with noted(self._failed, way):
                said[way] = caller.ask(do, event, **details)
        return said

    def time(self, plan: Plan, progress: Progress) -> dict[tuple[str, int], Measured]:
        """Time all turns of all ways, round by round, so that all see the same machine."""
        measured = {turn: Measured() for turn in TURNS}
        calls: dict[tuple[str, str, int], int] = {}
        for done in range(plan.rounds + 1):
            progress(done / (plan.rounds + 1), f"round {done} of {plan.rounds}")
            for callback, threads in TURNS:
                for way in turned(list(self.callers), done):
                    key = (way, callback, threads)
                    ns = self._time_one(way, callback, threads, calls.get(key, FIRST_CALLS))
                    if key not in calls:
                        calls[key] = _in(CALLS, round(ROUND_NS / (ns * threads)))
                    else:
                        measured[callback, threads].ns.setdefault(way, []).append(ns)
        return {turn: self._without_failed(one) for turn, one in measured.items()}

    def _time_one(self, way: str, callback: str, threads: int, calls: int) -> float:
        with noted(self._failed, way):
            order = {"callback": callback, "threads": threads, "calls": calls}
            said = self._all[way].ask("time", "timed", **order)
            return max(float(said["ns"]), 1.0) / (calls * threads)
        return 1.0

    def churn(self, threads: int) -> tuple[Measured, dict[str, Row]]:
        """Time threads of one callback; tell what they left behind."""
        measured = Measured()
        self.ask_all("churn", "churned", threads=CHURN_ROUND)  # so that memory has its shape
        before = self.ask_all("memory", "memory", states=1)
        for turn in range(max(1, threads // CHURN_ROUND)):
            for way in turned(list(self.callers), turn):
                with noted(self._failed, way):
                    said = self._all[way].ask("churn", "churned", threads=CHURN_ROUND)
                    measured.ns.setdefault(way, []).append(said["ns"] / CHURN_ROUND)
        left: dict[str, Row] = {}
        for way, caller in self.callers.items():
            with noted(self._failed, way):
                states = before[way]["states"]
                after = caller.ask("memory", "memory", states=states)
                grown = after["resident_bytes"] - before[way]["resident_bytes"]
                left[way] = {
                    "resident_growth_kib": round(grown / 1024),
                    "states_left": after["states"] - states,
                }
        return self._without_failed(measured), left

    def _without_failed(self, measured: Measured) -> Measured:
        return Measured({way: ns for way, ns in measured.ns.items() if way not in self._failed})


def _in(bounds: tuple[int, int], value: int) -> int:
    return min(max(value, bounds[0]), bounds[1])
