"""Goals: what moored promises about its price, and what a run measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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
        digits = 2  # and more where the measured value would look like the bound that it misses
        while not self.met and digits < 6 and float(f"{self.measured:.{digits}f}") == self.limit:
            digits += 1
        measured = f"{self.measured:.{digits}f} {self.unit}"
        return f"{word}: {self.name}: {measured} ({bound} {self.limit:g})"

    def as_json(self) -> dict[str, Any]:
        """Give it as it stands in a document."""
        measured = {"name": self.name, "measured": round(self.measured, 3)}
        return measured | {"limit": self.limit, "unit": self.unit, "met": self.met}


def all_met(goals: Sequence[Goal]) -> bool:
    """Whether every promise holds."""
    return all(goal.met for goal in goals)
