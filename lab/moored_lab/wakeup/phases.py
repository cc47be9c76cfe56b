"""Phases: one mode in one round, and how phases become the rows of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from moored_lab.wakeup.sampling import Usage

ENDS = ("delivered", "lost", "refused")
"""What can become of an event; nothing else can."""

Row = dict[str, Any]


@dataclass
class Phase:
    """One mode in one round: what the threads used and what became of the events."""

    round: int
    mode: str
    switched_ns: int
    before: Mapping[str, int]
    """The server's stats when the phase began."""
    after: Mapping[str, int] = field(default_factory=dict)
    """The stats when the next phase began; of the last phase, when the server had stopped."""
    usage: Usage | None = None
    latency: Mapping[str, float] = field(default_factory=dict)
    own_work_per_s: float | None = None
    """What main got done of its own work; None where it has none."""

    def count(self, what: str) -> int:
        """Return how often something was counted in this phase."""
        return int(self.after.get(what, 0)) - int(self.before.get(what, 0))


def rows_of(phases: Sequence[Phase], modes: Sequence[str], reference: str | None) -> list[Row]:
    """Make one row for each mode: medians, smallest and largest over the rounds.

    The events are summed over the rounds, so that all rows together account for every event.
    The change is taken against the reference of the same round.
    """
    process_of_round = {
        phase.round: phase.usage.process_cpu_percent
        for phase in phases
        if phase.mode == reference and phase.usage
    }

    def change(phase: Phase) -> float | None:
        base = process_of_round.get(phase.round)
        if phase.usage is None or base is None:
            return None
        return phase.usage.process_cpu_percent - base

    def numbers(phase: Phase) -> dict[str, float | None]:
        use = phase.usage
        return {
            "process_cpu_percent": use.process_cpu_percent if use else None,
            "main_cpu_percent": use.main_cpu_percent if use else None,
            "others_cpu_percent": use.others_cpu_percent if use else None,
            "change_points": change(phase),
            "latency_p50_us": phase.latency.get("p50_us"),
            "latency_p99_us": phase.latency.get("p99_us"),
            "own_work_per_s": phase.own_work_per_s,
            "context_switches_per_s": use.context_switches_per_s if use else None,
            "page_faults_per_s": use.page_faults_per_s if use else None,
        }

    rows = []
    for mode in modes:
        mine = [phase for phase in phases if phase.mode == mode]
        if not mine:
            continue
        row: Row = {"mode": mode, "rounds": sum(phase.usage is not None for phase in mine)}
        measured = [numbers(phase) for phase in mine]
        for key in measured[0]:
            row |= _middle(key, (values[key] for values in measured))
        row |= {what: sum(phase.count(what) for phase in mine) for what in (*ENDS, "entries")}
        rows.append(row)
    return rows


def _middle(key: str, values: Iterable[float | None]) -> Row:
    known = [float(value) for value in values if value is not None]
    if not known:
        return {key: None, f"{key}_min": None, f"{key}_max": None}
    return {
        key: round(median(known), 3),
        f"{key}_min": round(min(known), 3),
        f"{key}_max": round(max(known), 3),
    }
