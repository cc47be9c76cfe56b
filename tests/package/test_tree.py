"""The checks of the tree that `make lint` runs as well: layers and words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.processes import finish

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize("check", ["layers.py", "words.py"])
def test_the_tree_passes(check: str) -> None:
    done = finish(sys.executable, TOOLS / check)
    assert (done.code, done.out, done.err) == (0, "", "")
