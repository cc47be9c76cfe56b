"""The files of the checkout, without what builds leave in it; git is not asked: some have none."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDERS = ("cmake", "docs", "examples", "include", "lab", "python", "src", "tests", "tools")
LEFT_BY_BUILDS = {"build", "__pycache__"}


def files() -> list[Path]:
    """Return their paths below the checkout."""
    top = [path for path in CHECKOUT.iterdir() if path.is_file()]
    below = [path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*")]
    found = [path.relative_to(CHECKOUT) for path in (*top, *below) if path.is_file()]
    return sorted(path for path in found if not LEFT_BY_BUILDS & set(path.parts))
