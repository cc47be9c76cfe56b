"""Counts tests: adds up what ctest and pytest say in their JUnit files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Results:
    """How many tests passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Results) -> Results:
        """Add two results up."""
        return Results(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        """Say it in the form that test runners end with."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    def cell(self) -> str:
        """Say it in short, for a table."""
        parts = [f"{self.passed} ok"]
        parts += [f"{self.failed} FAILED"] if self.failed else []
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        return ", ".join(parts)


def read_junit(path: Path) -> Results:
    """Add up the suites of a JUnit file; a file that is missing or cut off is one failure."""
    try:
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return Results(failed=1)

    def total(*names: str) -> int:
        return sum(int(suite.get(name) or 0) for suite in suites for name in names)

    failed, skipped = total("failures", "errors"), total("skipped", "disabled")
    return Results(total("tests") - failed - skipped, failed, skipped)
