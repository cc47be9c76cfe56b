"""Cost chart: the picture of `moored lab cost`, drawn from its JSON object alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moored_lab.report.chart import ACCENT, INK, MAIN, OTHERS, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
Row = Mapping[str, Any]

STANDS_OUT = 0.5
"""A part with at least this share of the whole is drawn in the accent colour."""

WAYS = ("temporary_no_call", "temporary", "temporary_locals", "kept", "kept_locals")


def draw(document: Document) -> Figure:
    """Draw the share of each part above, and what each operation costs alone below."""
    shares = [row for row in document["rows"] if "share" in row]
    prices = [row for row in document["rows"] if "share" not in row]
    whole = next(row["ns_median"] for row in prices if row["key"] == "temporary")
    with look():
        figure = new_figure(9.5, 8.5)
        figure.set_layout_engine("constrained")
        above, below = figure.subplots(2, 1, height_ratios=(len(shares), len(prices)))
        figure.suptitle(
            f"CPython {document['python']}: a temporary thread state with a Python frame costs "
            f"{readable_ns(whole)}",
            x=0.01,
            ha="left",
        )
        _draw_shares(above, shares, whole)
        _draw_prices(below, prices)
    return figure


def readable_ns(ns: float) -> str:
    """Write nanoseconds up to 1000, microseconds above."""
    return f"{ns / 1000:.1f} us" if ns >= 1000 else f"{ns:.0f} ns"


def _draw_shares(axes: Axes, rows: Sequence[Row], whole: float) -> None:
    rows = sorted(rows, key=lambda row: row["share"] or 0.0)
    values = [100 * (row["share"] or 0.0) for row in rows]
    axes.barh(
        range(len(rows)),
        values,
        color=[ACCENT if value >= 100 * STANDS_OUT else OTHERS for value in values],
        tick_label=[row["part"] for row in rows],
    )
    for at, (row, value) in enumerate(zip(rows, values, strict=True)):
        label = row["note"] or f"{value:.1f} %  ({readable_ns(row['ns_median'])})"
        axes.text(value, at, f" {label}", va="center", color=INK)
    axes.set_title(f"Share of each part in those {readable_ns(whole)}", loc="left", fontsize=10)
    axes.set_xlim(0, max(values) * 1.25)
    _only_bars(axes)


def _draw_prices(axes: Axes, rows: Sequence[Row]) -> None:
    rows = sorted(rows, key=lambda row: float(row["ns_median"]))
    values = [row["ns_median"] for row in rows]
    axes.barh(
        range(len(rows)),
        values,
        color=[MAIN if row["key"] in WAYS else OTHERS for row in rows],
        tick_label=[row["name"] for row in rows],
    )
    for at, value in enumerate(values):
        axes.text(value, at, f" {readable_ns(value)}", va="center", color=INK)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 4)
    axes.set_title(
        "Each alone, logarithmic (dark: a whole way into Python and back)", loc="left", fontsize=10
    )
    _only_bars(axes)


def _only_bars(axes: Axes) -> None:
    """Leave only the bars: their labels say the numbers."""
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    axes.tick_params(axis="y", length=0)
