"""Spin chart: the picture of `moored lab spin`, drawn from its JSON object alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moored_lab.report.chart import ACCENT, MAIN, OTHERS_INK, QUIET, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
Row = Mapping[str, Any]

COLOURS = (ACCENT, MAIN, OTHERS_INK, QUIET)


def draw(document: Document) -> Figure:
    """Draw process CPU against the length of the spin, side by side for each scenario."""
    rows = document["rows"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    highest = max((row["process_cpu_percent_max"] or 0.0 for row in rows), default=0.0)
    top = 1.1 * highest or 1.0
    with look():
        figure = new_figure(4.8 * len(scenarios), 4.4)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
        for axes, scenario in zip(panels, scenarios, strict=True):
            axes.set_ylim(0, top)
            axes.set_title(scenario, loc="left", fontsize=10)
            _draw(axes, [row for row in rows if row["scenario"] == scenario], top)
        panels[0].set_ylabel("process CPU, % of one core")
        figure.suptitle(
            f"CPython {document['python']}: a spin before the GIL blocks", x=0.01, ha="left"
        )
    return figure


def _draw(axes: Axes, rows: Sequence[Row], top: float) -> None:
    """Draw one line for each mode, the spread around each point, and the name at its end."""
    spins = sorted({row["spin_us"] for row in rows})
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    ends: list[tuple[float, str, str]] = []
    for number, mode in enumerate(modes):
        colour = COLOURS[number % len(COLOURS)]
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
        axes.text(len(spins) - 0.9, height, mode, color=colour, va="center")
        lowest = height + 0.045 * top
    axes.set_xticks(range(len(spins)), [str(spin_us) for spin_us in spins])
    axes.set_xlim(-0.3, len(spins) - 0.1)
    axes.set_xlabel("spin, us")
