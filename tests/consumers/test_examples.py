"""Builds and runs the examples by the two commands in the README of each."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from building import CHECKOUT
from support.building import needs_cmake, needs_library
from support.limits import BUILD_S
from support.processes import finish

EXAMPLES = CHECKOUT / "examples"
SAYS = {
    "asio_asyncio_server": (
        r"10 answers, A 0 to A 9\n10 answers, B 0 to B 9\n10 answers, C 0 to C 9\n30 requests\n"
    ),
    "audio_callback": r"level -9\.0 dB, \d+ blocks dropped\n",
    "game_loop": (
        r"poll: \d+ events, median latency \d+ us\n"
        + (r"interrupt: \d+ events, median latency \d+ us\n" if sys.version_info >= (3, 13) else "")
    ),
    "io_worker": r"1 lines, 2 words\n2 lines, 5 words\n",
    "nanobind_ticker": r"tick 1, seen 1\ntick 2, seen 2\ntick 3, seen 3\n",
    "producer_async_for": r"100000 messages in order, 0 left\nbatches: fewer than messages\n",
}


def commands_of(example: str) -> list[str]:
    """The two commands in the README: to build, and to run."""
    page = (EXAMPLES / example / "README.md").read_text()
    block = re.search(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert block
    lines = block[1].splitlines()
    assert len(lines) == 2
    return lines


def try_out(example: str, folder: Path) -> str:
    """Do in a folder what the README says; returns what the program says."""
    if example != "io_worker":
        pytest.importorskip("nanobind")
    shutil.copytree(EXAMPLES / example, folder / "examples" / example)
    binaries = Path(sys.executable).parent
    as_activated = {"VIRTUAL_ENV": str(binaries.parent), "PATH": f"{binaries}:{os.environ['PATH']}"}
    build, run = commands_of(example)
    built = finish("sh", "-c", build, folder=folder, limit=BUILD_S, **as_activated)
    assert built.code == 0, built.out + built.err
    if example == "io_worker":  # the program itself belongs to no virtual environment
        as_activated["PYTHONHOME"] = sys.base_prefix
    done = finish("sh", "-c", run, folder=folder, **as_activated)
    assert (done.code, done.err) == (0, ""), done.out
    return done.out


def test_every_example_is_tried() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()) == sorted(SAYS)


@needs_cmake
@pytest.mark.parametrize("example", sorted(set(SAYS) - {"io_worker"}))
def test_an_extension(example: str, tmp_path: Path) -> None:
    assert re.fullmatch(SAYS[example], try_out(example, tmp_path))


@needs_cmake
@needs_library
def test_a_program_that_embeds_python(tmp_path: Path) -> None:
    assert re.fullmatch(SAYS["io_worker"], try_out("io_worker", tmp_path))
