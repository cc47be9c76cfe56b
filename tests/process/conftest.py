"""The extension native_threads, built once for this interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from limits import BUILD_S, HANG_S

import moored


@dataclass
class Ending:
    """What a process left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def extension_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with native_threads in it."""
    folder = tmp_path_factory.mktemp("native_threads")
    source = Path(__file__).with_name("native_threads.cpp")
    includes = [moored.get_include(), sysconfig.get_path("include")]
    subprocess.run(
        [
            *("c++", "-std=c++20", "-O2", "-shared", "-fPIC", "-pthread"),
            *("-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
            *(word for include in includes for word in ("-isystem", include)),
            *(str(source), "-o", str(folder / "native_threads.so")),
        ],
        check=True,
        timeout=BUILD_S,
    )
    return folder


@pytest.fixture
def end_of(extension_folder: Path) -> Callable[[str], Ending]:
    """Run a script that may import native_threads, and see how its process ends."""

    def run(script: str) -> Ending:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script)],
            env=os.environ | {"PYTHONPATH": str(extension_folder)},
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        return Ending(done.returncode, done.stdout, done.stderr)

    return run
