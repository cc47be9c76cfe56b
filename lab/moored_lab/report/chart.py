"""Chart: matplotlib when it is needed, one look for every picture, and files that are whole."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moored_lab.report import place
from moored_lab.report.place import CannotWrite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#222222"
QUIET = "#7a7a7a"
MAIN = "#3c3f44"
OTHERS = "#8db4d2"
OTHERS_INK = "#4d7fa6"
ACCENT = "#c0522b"

KINDS = ("png", "svg")

_LOOK: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "moored",
}


class NoCharts(Exception):
    """Charts cannot be drawn here; the message says what to install."""


def require_matplotlib() -> None:
    """Say before a long run that there will be no picture after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise NoCharts(
            "a picture needs matplotlib: pip install matplotlib, or go without: --no-chart"
        ) from error


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches; it is drawn without a display."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def look() -> Any:
    """Return the context in which pictures are drawn: one look for all of them."""
    require_matplotlib()
    import logging

    import matplotlib

    # A font of the list that is not installed is what the list is for, and no news.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return matplotlib.rc_context(_LOOK)


def prepare_folder(folder: Path) -> None:
    """Make the folder of the pictures, with its parents, or say why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot write into {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise CannotWrite(f"cannot write into {folder}: no permission")


def free_stem(folder: Path, stem: str, force: bool) -> str:
    """Return a name that replaces no earlier picture, with a number if need be."""
    number, name = 1, stem
    while not force and any((folder / f"{name}.{kind}").exists() for kind in KINDS):
        number += 1
        name = f"{stem}-{number}"
    return name


def save(figure: Figure, folder: Path, stem: str, force: bool = False) -> list[Path]:
    """Write the figure as PNG and SVG under one name, each as a whole, and return the paths."""
    prepare_folder(folder)
    name = free_stem(folder, stem, force)
    written = []
    for kind in KINDS:
        content = io.BytesIO()
        with look():
            figure.savefig(content, format=kind, dpi=160, metadata=_no_date(kind))
        path = folder / f"{name}.{kind}"
        place.write(path, content.getvalue())
        written.append(path)
    return written


def _no_date(kind: str) -> dict[str, Any]:
    return {"Date": None} if kind == "svg" else {}
