"""Runs scripts in processes of their own, with native threads that call them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.building import compile_library
from support.processes import run_script as run_in_child

HERE = Path(__file__).parent

Script = Callable[..., str]


@pytest.fixture(scope="session")
def foreign_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library behind foreign_threads.py."""
    folder = tmp_path_factory.mktemp("foreign_threads")
    return compile_library(HERE / "foreign_threads.c", folder / "foreign_threads.so")


@pytest.fixture
def run_script(foreign_threads: Path) -> Script:
    """Run a script that may import foreign_threads; it must end well and say nothing on stderr."""

    def run(script: str, **variables: str) -> str:
        places = {"FOREIGN_THREADS": str(foreign_threads), "PYTHONPATH": str(HERE)}
        done = run_in_child(script, **(places | variables))
        assert (done.code, done.err) == (0, ""), done.out
        return done.out

    return run
