"""The picture of `moored lab spin`: process CPU against the length of the spin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

INK = "#333333"
COLOURS = ("#c0504d", "#4f6d8a", "#7a9a5a", "#8a6d9c", "#b08a3e", "#555555")


def draw(rows: Sequence[dict[str, Any]], python: str, folder: Path) -> list[Path]:
    """Write spin.png and spin.svg into `folder`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    figure, panels = pyplot.subplots(
        1,
        len(scenarios),
        figsize=(4.8 * len(scenarios), 4.4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    highest = max((row["process_cpu_percent_max"] or 0.0 for row in rows), default=0.0)
    top = 1.1 * highest or 1.0
    for axes, scenario in zip(panels[0], scenarios, strict=True):
        axes.set_ylim(0, top)
        _draw(axes, scenario, [row for row in rows if row["scenario"] == scenario], top)
    panels[0][0].set_ylabel("process CPU, % of one core")
    figure.suptitle(f"CPython {python}: a spin before the GIL blocks", x=0.01, ha="left")
    paths = [folder / "spin.png", folder / "spin.svg"]
    for path in paths:
        figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths


def _draw(axes: Any, scenario: str, rows: Sequence[dict[str, Any]], top: float) -> None:
    """Draw one line for each mode; its name stands at its end, and the spread around each point."""
    spins = sorted({row["spin_us"] for row in rows})
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    ends: list[tuple[float, str, str]] = []
    for mode, colour in zip(modes, COLOURS * len(modes), strict=False):
        points = [
            row for row in rows if row["mode"] == mode and row["process_cpu_percent"] is not None
        ]
        if not points:
            continue
        at = [spins.index(row["spin_us"]) for row in points]
        cpu = [row["process_cpu_percent"] for row in points]
        low = [row["process_cpu_percent_min"] for row in points]
        high = [row["process_cpu_percent_max"] for row in points]
        axes.plot(at, cpu, marker="o", color=colour)
        axes.vlines(at, low, high, color=colour, alpha=0.4)
        ends.append((cpu[-1], mode, colour))
    lowest = 0.0
    for value, mode, colour in sorted(ends):
        height = max(value, lowest)  # names of lines that end close together stand apart
        axes.text(len(spins) - 0.9, height, mode, color=colour, va="center", fontsize=9)
        lowest = height + 0.045 * top
    axes.set_title(scenario, loc="left", fontsize=11, color=INK)
    axes.set_xticks(range(len(spins)), [f"{spin_us}" for spin_us in spins])
    axes.set_xlim(-0.3, len(spins) - 1 + 0.9)
    axes.set_xlabel("spin, us")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
