"""Spin: the same server, with a bounded spin before the GIL's condition variable really blocks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from moored_lab.report.progress import Progress, silent
from moored_lab.wakeup import wakeup
from moored_lab.wakeup.options import BadOption, Options
from moored_lab.wakeup.paths import installed

Row = dict[str, Any]

SPINS_US: tuple[int, ...] = (0, 20, 100, 1000)
LONGEST_US = 100_000
"""The preloaded library has the same bound."""

VARIABLE = "MOORED_SPIN_US"
MEASURED = ("process_cpu_percent", "latency_p50_us", "latency_p99_us")


@dataclass(frozen=True)
class Scenario:
    """What wants the GIL besides one IO thread."""

    name: str
    threads: int
    main_busy: float

    def options(self, base: Options, spin_us: int) -> Options:
        """Make one round of this scenario with this spin."""
        return replace(
            base,
            threads=self.threads,
            main_busy=self.main_busy,
            repeat=1,
            # A waiter that spins on the holder's own CPU only keeps the holder from running.
            pin=len(os.sched_getaffinity(0)) > 2,
            env={**base.env, **environment(spin_us)},
        )


SCENARIOS = (
    Scenario("main idle", threads=2, main_busy=0.0),
    Scenario("main busy", threads=2, main_busy=25.0),
)


def library() -> Path:
    """Return the library that spins."""
    return installed("lib/libmoored_spin.so")


def environment(spin_us: int) -> dict[str, str]:
    """Give the variables that make a process spin; 0 preloads too, so that nothing else differs."""
    preloaded = os.environ.get("LD_PRELOAD")
    libraries = [str(library()), *([preloaded] if preloaded else [])]
    return {"LD_PRELOAD": ":".join(libraries), VARIABLE: str(spin_us)}


def spins_in(text: str, name: str) -> tuple[int, ...]:
    """Read microseconds as `name` gives them: with commas or spaces; 0 is always among them."""
    spins = {0}
    for word in text.replace(",", " ").split():
        if not (word.isascii() and word.isdigit() and int(word) <= LONGEST_US):
            raise BadOption(f"{name} {word!r} is not possible: give 0 to {LONGEST_US} microseconds")
        spins.add(int(word))
    if spins == {0}:
        raise BadOption(f"{name} {text!r} names no spin: give one or more of 1 to {LONGEST_US}")
    return tuple(sorted(spins))


def run(
    base: Options,
    spins_us: Sequence[int] = SPINS_US,
    scenarios: Sequence[Scenario] = SCENARIOS,
    progress: Progress = silent,
) -> list[Row]:
    """Measure every spin in every scenario, `base.repeat` times, interleaved; medians as rows."""
    schedule = [
        (scenario, spin_us)
        for _ in range(base.repeat)
        for scenario in scenarios
        for spin_us in spins_us
    ]
    runs: dict[tuple[str, str, int], list[Row]] = {}
    for at, (scenario, spin_us) in enumerate(schedule):

        def tell(done: float, doing: str, at: int = at, doing_what: str = scenario.name) -> None:
            progress((at + done) / len(schedule), f"{doing_what}, {doing}")

        result = wakeup.run(scenario.options(base, spin_us), tell)
        if result.imbalance:
            raise wakeup.LabFailed(result.imbalance)
        if result.interrupted:
            raise KeyboardInterrupt
        for row in result.rows:
            runs.setdefault((scenario.name, row["mode"], spin_us), []).append(row)
    return [
        _row(runs, scenario.name, mode, spin_us)
        for scenario in scenarios
        for mode in base.modes
        for spin_us in spins_us
    ]


def _row(
    runs: dict[tuple[str, str, int], list[Row]], scenario: str, mode: str, spin_us: int
) -> Row:
    mine, without = runs[scenario, mode, spin_us], runs[scenario, mode, 0]
    row: Row = {"scenario": scenario, "mode": mode, "spin_us": spin_us}
    for key in MEASURED:
        known = [one[key] for one in mine if one[key] is not None]
        row[key] = _middle(known)
        row[f"{key}_min"], row[f"{key}_max"] = min(known, default=None), max(known, default=None)
    # Against no spin in the same round: both saw about the same machine.
    row["change_points"] = _middle(
        one["process_cpu_percent"] - base["process_cpu_percent"]
        for one, base in zip(mine, without, strict=True)
        if one["process_cpu_percent"] is not None and base["process_cpu_percent"] is not None
    )
    for key in ("delivered", "lost", "refused"):
        row[key] = sum(one[key] for one in mine)
    return row


def _middle(values: Iterable[float]) -> float | None:
    known = list(values)
    return round(median(known), 3) if known else None


def verdict(rows: Sequence[Row]) -> str:
    """Say in one computed sentence for each scenario what the longest spin did."""
    longest = max(row["spin_us"] for row in rows)
    said = []
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        changes = [
            f"{row['mode']} {row['change_points']:+.1f} points"
            for row in rows
            if row["scenario"] == scenario
            and row["spin_us"] == longest
            and row["change_points"] is not None
        ]
        said.append(f"{scenario}: {', '.join(changes)}")
    return f"Process CPU with a spin of {longest} us against none: {'; '.join(said)}."
