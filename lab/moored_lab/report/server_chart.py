"""Server chart: the picture of `moored bench server`, drawn from its JSON object alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moored_lab.report.chart import ACCENT, INK, OTHERS, look, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(document: Mapping[str, Any]) -> Figure:
    """Draw requests per second as bars, each with its spread and its ratio to stock."""
    rows = document["rows"]
    highest = max(row["requests_per_s_max"] for row in rows)
    with look():
        figure = new_figure(7.2, 2.4)
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for height, row in enumerate(reversed(rows)):
            colour = ACCENT if row["way"] == "moored run" else OTHERS
            axes.barh(height, row["requests_per_s"], height=0.6, color=colour)
            ends = [row["requests_per_s_min"], row["requests_per_s_max"]]
            axes.plot(ends, [height, height], color=INK, linewidth=1)
            words = f"{row['requests_per_s']:,.0f}  ({row['ratio']:.2f} x)"
            axes.text(ends[1] + 0.015 * highest, height, words, va="center")
        axes.set_yticks(range(len(rows)), [row["way"] for row in reversed(rows)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, 1.28 * highest)
        axes.set_xlabel("requests per second: median, and the least and the most of the rounds")
        figure.suptitle(document["title"], x=0.01, ha="left", fontsize=9)
    return figure
