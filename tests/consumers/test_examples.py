"""Builds the examples as their readers would, and runs them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from building import CHECKOUT, FROM_WHEEL
from support.building import build, build_with_cmake, needs_cmake, needs_library
from support.limits import HANG_S

EXAMPLES = CHECKOUT / "examples"


@needs_cmake
@needs_library
def test_io_worker(tmp_path: Path) -> None:
    build_with_cmake(EXAMPLES / "io_worker", tmp_path, FROM_WHEEL)
    said = build(
        *(tmp_path / "io_worker", EXAMPLES / "io_worker" / "count.py"),
        stdin="a line\nand another line\n",
        limit=HANG_S,
        PYTHONHOME=sys.base_prefix,
    )
    assert said == "1 lines, 2 words\n2 lines, 5 words\n"


@needs_cmake
def test_nanobind_ticker(tmp_path: Path) -> None:
    nanobind = pytest.importorskip("nanobind")
    where = f"-Dnanobind_DIR={nanobind.cmake_dir()}"
    build_with_cmake(EXAMPLES / "nanobind_ticker", tmp_path, FROM_WHEEL, where)
    script = EXAMPLES / "nanobind_ticker" / "tick.py"
    said = build(sys.executable, script, PYTHONPATH=str(tmp_path), limit=HANG_S)
    assert said == "tick 1, seen 1\ntick 2, seen 2\ntick 3, seen 3\n"


def run_channel_example(name: str, script: str, folder: Path) -> str:
    """Build an example's nanobind module, and run its script with it."""
    nanobind = pytest.importorskip("nanobind")
    where = f"-Dnanobind_DIR={nanobind.cmake_dir()}"
    build_with_cmake(EXAMPLES / name, folder, FROM_WHEEL, where)
    return build(sys.executable, EXAMPLES / name / script, PYTHONPATH=str(folder), limit=HANG_S)


@needs_cmake
def test_asio_asyncio_server(tmp_path: Path) -> None:
    said = run_channel_example("asio_asyncio_server", "serve.py", tmp_path)
    assert said == (
        "10 answers, A 0 to A 9\n10 answers, B 0 to B 9\n10 answers, C 0 to C 9\n30 requests\n"
    )


@needs_cmake
def test_producer_async_for(tmp_path: Path) -> None:
    said = run_channel_example("producer_async_for", "consume.py", tmp_path)
    assert said == "100000 messages in order, 0 left\nbatches: fewer than messages\n"


@needs_cmake
def test_audio_callback(tmp_path: Path) -> None:
    said = run_channel_example("audio_callback", "meter.py", tmp_path)
    assert re.fullmatch(r"level -9\.0 dB, \d+ blocks dropped\n", said)


@needs_cmake
def test_game_loop(tmp_path: Path) -> None:
    said = run_channel_example("game_loop", "play.py", tmp_path)
    lines = said.splitlines()
    assert len(lines) == (2 if sys.version_info >= (3, 13) else 1)
    for line, delivery in zip(lines, ("poll", "interrupt"), strict=False):
        assert re.fullmatch(delivery + r": \d+ events, median latency \d+ us", line)
