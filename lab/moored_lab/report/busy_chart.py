"""Busy chart: the picture of `moored lab busy`, drawn from its JSON object alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moored_lab.report.chart import ACCENT, MAIN, OTHERS, OTHERS_INK, QUIET, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
Row = Mapping[str, Any]

COLOURS = {
    "stock": MAIN,
    "kept": QUIET,
    "urgent": ACCENT,
    "urgent 2%": "#e0a080",
    "urgent 100%": "#7a2c10",
}
OTHER_COLOURS = (OTHERS, "#6f9fc2", OTHERS_INK, "#2f4f66")


def draw(document: Document) -> Figure:
    """Draw the median wait, and beside it main's progress, against the visits that are wished."""
    rows = [row for row in document["rows"] if "wait_p50_us" in row]
    rates = sorted({row["rate_per_s"] for row in rows})
    keys = list(dict.fromkeys(row["key"] for row in rows))
    others = iter(OTHER_COLOURS * len(keys))
    colours = {key: COLOURS.get(key) or next(others) for key in keys}
    with look():
        figure = new_figure(9.6, 4.4)
        figure.set_layout_engine("constrained")
        waits, shares = figure.subplots(1, 2)
        waits.set_yscale("log")
        waits.set_ylabel("median wait for the GIL, us")
        shares.set_ylabel("main's progress, % of main alone")
        for axes, key_of_value, scale in ((waits, "wait_p50_us", 1), (shares, "progress", 100)):
            axes.set_xlabel("visits wished for, per second")
            axes.set_xticks(range(len(rates)), [f"{rate:,}" for rate in rates])
            for key in keys:
                mine = [row for row in rows if row["key"] == key]
                _line(axes, mine, rates, key_of_value, scale, colours[key])
        handles, names = waits.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(
            f"CPython {document['python']}: a native thread and a main thread that computes",
            x=0.01,
            ha="left",
        )
    return figure


def _line(
    axes: Axes, rows: Sequence[Row], rates: Sequence[int], key: str, scale: float, colour: str
) -> None:
    at = [rates.index(row["rate_per_s"]) for row in rows]
    axes.plot(at, [scale * row[key] for row in rows], "o-", color=colour, label=rows[0]["name"])
    low = [scale * row[f"{key}_p10"] for row in rows]
    high = [scale * row[f"{key}_p90"] for row in rows]
    axes.vlines(at, low, high, color=colour, alpha=0.4)
