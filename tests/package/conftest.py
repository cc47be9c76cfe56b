"""Runs scripts in processes of their own, with native threads that call them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from limits import BUILD_S, HANG_S

HERE = Path(__file__).parent

Script = Callable[..., str]


@pytest.fixture(scope="session")
def foreign_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library behind foreign_threads.py."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path_factory.mktemp("foreign_threads") / "foreign_threads.so"
    subprocess.run(
        [
            *(compiler, "-std=c11", "-O2", "-shared", "-fPIC", "-pthread"),
            *("-Wall", "-Wextra", "-Werror", str(HERE / "foreign_threads.c"), "-o", str(library)),
        ],
        check=True,
        timeout=BUILD_S,
    )
    return library


@pytest.fixture
def run_script(foreign_threads: Path) -> Script:
    """Run a script that may import foreign_threads; it must end well and say nothing on stderr."""

    def run(script: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script)],
            env=os.environ
            | {"FOREIGN_THREADS": str(foreign_threads), "PYTHONPATH": str(HERE)}
            | variables,
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    return run
