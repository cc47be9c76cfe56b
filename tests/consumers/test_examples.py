"""Builds the examples as their readers would, and runs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from building import CHECKOUT, FROM_WHEEL, build_with_cmake, needs_cmake, needs_library, run

EXAMPLES = CHECKOUT / "examples"


@needs_cmake
@needs_library
def test_io_worker(tmp_path: Path) -> None:
    build_with_cmake(EXAMPLES / "io_worker", tmp_path, FROM_WHEEL)
    said = run(
        *(tmp_path / "io_worker", EXAMPLES / "io_worker" / "count.py"),
        stdin="a line\nand another line\n",
        limit=60,
        PYTHONHOME=sys.base_prefix,
    )
    assert said == "1 lines, 2 words\n2 lines, 5 words\n"


@needs_cmake
def test_nanobind_ticker(tmp_path: Path) -> None:
    nanobind = pytest.importorskip("nanobind")
    where = f"-Dnanobind_DIR={nanobind.cmake_dir()}"
    build_with_cmake(EXAMPLES / "nanobind_ticker", tmp_path, FROM_WHEEL, where)
    script = EXAMPLES / "nanobind_ticker" / "tick.py"
    said = run(sys.executable, script, PYTHONPATH=str(tmp_path), limit=60)
    assert said == "tick 1, seen 1\ntick 2, seen 2\ntick 3, seen 3\n"
