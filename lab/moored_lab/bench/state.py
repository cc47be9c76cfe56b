"""State: what a kept thread state costs in memory.

As a script it is the measured process: it makes the threads, and prints by how much it has grown.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

from moored_lab.bench.process import turned
from moored_lab.bench.rounds import spread
from moored_lab.report.progress import Progress, silent

LIMIT_S = 120.0

NONE, TEMPORARY, KEPT = "none", "temporary", "kept"
WAYS = {
    NONE: "has not called Python",
    TEMPORARY: "has called once, by a temporary state",
    KEPT: "has called once, and keeps its state",
}


class NotMeasured(Exception):
    """A measured process failed; the message is its last word."""


def measure(rounds: int, threads: int, progress: Progress = silent) -> dict[str, list[float]]:
    """Give the bytes per thread of each round, by way.

    Each is a process of its own, because memory that a process has had it does not always return.
    """
    bytes_of: dict[str, list[float]] = {way: [] for way in WAYS}
    for done in range(rounds):
        for way in turned(tuple(WAYS), done):
            progress(done / rounds, f"round {done + 1} of {rounds}")
            command = [sys.executable, "-m", "moored_lab.bench.state", way, str(threads)]
            ran = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
            if ran.returncode != 0:
                words = ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode}"]
                raise NotMeasured(words[-1])
            bytes_of[way].append(int(ran.stdout) / threads)
    return bytes_of


def rows_of(bytes_of: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One row for each way, and one for the state alone.

    The state is what a thread that keeps one has more than a thread that never called. Of a
    temporary state some bytes stay too: with malloc, for that thread's next one.
    """
    rows: list[dict[str, Any]] = [
        {"name": f"a thread that {name}", "key": way} | _figures(bytes_of[way])
        for way, name in WAYS.items()
    ]
    alone = [kept - none for kept, none in zip(bytes_of[KEPT], bytes_of[NONE], strict=True)]
    return [*rows, {"name": "so, a kept state", "key": "state"} | _figures(alone)]


def _figures(values: list[float]) -> dict[str, int]:
    low, high = spread(values)
    figures = {"bytes_median": statistics.median(values), "bytes_p10": low, "bytes_p90": high}
    return {key: round(value) for key, value in figures.items()}


def _only_returns() -> None:
    """Be the smallest callback that still is a Python frame."""


def main(way: str, threads: str) -> int:
    """Be the measured process."""
    from moored_lab import _cost

    print(_cost.growth_by(_only_returns, int(threads), way))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
