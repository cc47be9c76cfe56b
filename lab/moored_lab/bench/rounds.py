"""Rounds of a native bench, and what they say: min, median, spread."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moored_lab.report.progress import Progress, silent

if TYPE_CHECKING:
    from moored_lab._cost import Bench


@dataclass
class Samples:
    """All rounds of one operation, in order; each figure is per operation."""

    ns: list[float] = field(default_factory=list)
    page_faults: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Nanoseconds, median of the rounds."""
        return statistics.median(self.ns)

    def as_row(self) -> dict[str, Any]:
        """Give the figures under their names in the JSON."""
        low, high = spread(self.ns)
        return {
            "ns_min": round(min(self.ns), 2),
            "ns_median": round(self.median, 2),
            "ns_p10": round(low, 2),
            "ns_p90": round(high, 2),
            "page_faults": round(statistics.median(self.page_faults), 2),
        }


def spread(values: list[float]) -> tuple[float, float]:
    """Give the 10th and the 90th percentile."""
    if len(values) == 1:
        return values[0], values[0]
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    return deciles[0], deciles[-1]


def quiet_cpu() -> int:
    """Pick the CPU to measure on: the last one allowed, or -1 where it cannot be told."""
    try:
        return max(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return -1


def measure(bench: Bench, rounds: int, progress: Progress = silent) -> dict[str, Samples]:
    """Run `rounds` interleaved rounds of everything in the bench."""
    measured: dict[str, Samples] = {}
    for done in range(rounds):
        progress(done / rounds, f"round {done + 1} of {rounds}")
        for key, ns, page_faults in bench.round():
            samples = measured.setdefault(key, Samples())
            samples.ns.append(ns)
            samples.page_faults.append(page_faults)
    return measured
