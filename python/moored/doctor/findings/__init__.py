"""Findings: one rule a file; each yields what it finds in a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from moored.doctor.recording import Recording

from . import (
    busy_main,
    busy_threads,
    idle_states,
    late_attaches,
    long_holds,
    loop_wakes,
    lost_locals,
    one_call_threads,
    temporary_states,
)
from .finding import Finding

Rule = Callable[[Recording], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    temporary_states.find,
    busy_main.find,
    busy_threads.find,
    long_holds.find,
    one_call_threads.find,
    loop_wakes.find,
    lost_locals.find,
    late_attaches.find,
    idle_states.find,
)


def find_all(recording: Recording) -> list[Finding]:
    """Return what all rules find, the costliest first, and then what costs no time."""
    found = [finding for rule in RULES for finding in rule(recording)]
    return sorted(found, key=lambda finding: -finding.cost_ns)


__all__ = ["RULES", "Finding", "find_all"]
