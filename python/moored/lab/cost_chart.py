"""The picture of `moored lab cost`: what a temporary state is made of, and what each part costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moored.lab.cost import KEPT, MEASURED, WHOLE, Result, readable_ns, why_absent

INK = "#333333"
PART = "#8fa3b5"
STANDS_OUT = "#c0504d"
WHOLES = "#4f6d8a"
WHOLE_KEYS = ("temporary_no_call", WHOLE, "temporary_locals", KEPT, "kept_locals")


def draw(result: Result, python: str, folder: Path) -> list[Path]:
    """Write cost.png and cost.svg into `folder`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (shares, prices) = pyplot.subplots(
        2, 1, figsize=(9.5, 8.5), height_ratios=(5, 9), layout="constrained"
    )
    whole = readable_ns(result.samples[WHOLE].median)
    figure.suptitle(
        f"CPython {python}: a temporary thread state with a Python frame costs {whole}",
        x=0.01,
        ha="left",
    )
    _draw_shares(shares, result, whole)
    _draw_prices(prices, result)
    paths = [folder / "cost.png", folder / "cost.svg"]
    for path in paths:
        figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths


def _draw_shares(axes: Any, result: Result, whole: str) -> None:
    slices = sorted(result.slices(), key=lambda piece: piece.share or 0.0)
    values = [100 * (piece.share or 0.0) for piece in slices]
    axes.barh(
        [piece.part.name for piece in slices],
        values,
        color=[STANDS_OUT if value >= 50 else PART for value in values],
    )
    for at, piece in enumerate(slices):
        label = why_absent(piece.part) or f"{values[at]:.1f} %  ({readable_ns(piece.ns or 0.0)})"
        axes.text(values[at], at, f" {label}", va="center", color=INK, fontsize=9)
    axes.set_title(f"Share of each part in those {whole}", loc="left", fontsize=11)
    axes.set_xlim(0, max(values) * 1.25)
    _bare(axes)


def _draw_prices(axes: Any, result: Result) -> None:
    rows = sorted(MEASURED, key=lambda operation: result.samples[operation.key].median)
    values = [result.samples[operation.key].median for operation in rows]
    colours = [WHOLES if operation.key in WHOLE_KEYS else PART for operation in rows]
    names = [operation.name.format(bytes=result.state_bytes) for operation in rows]
    axes.barh(names, values, color=colours)
    for at, value in enumerate(values):
        axes.text(value, at, f" {readable_ns(value)}", va="center", color=INK, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 4)
    axes.set_title(
        "Each alone, logarithmic (dark: a whole way into Python and back)", loc="left", fontsize=11
    )
    _bare(axes)


def _bare(axes: Any) -> None:
    """Leave only the bars: their labels say the numbers."""
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
