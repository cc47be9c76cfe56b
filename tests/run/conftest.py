"""Runs programs stock and under `moored run`, with a native library that calls them back."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import CALLER, HERE, LAUNCHER, PREAMBLE, THREE_VISITS
from support.building import compile_library
from support.processes import Ending, finish


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH: caller and its native part, and the program three_visits."""
    folder = tmp_path_factory.mktemp("native")
    compile_library(HERE / "native_caller.c", folder / "native_caller.so")
    (folder / "caller.py").write_text(CALLER)
    (folder / "three_visits.py").write_text(THREE_VISITS)
    return folder


@pytest.fixture
def environment(native: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(native), "PYTHONWARNINGS": "ignore"}


Run = Callable[..., Ending]


@pytest.fixture
def stock(environment: dict[str, str]) -> Run:
    """Run a script, which may use caller and visit, as it is."""

    def run(script: str, *options: str) -> Ending:
        code = PREAMBLE + textwrap.dedent(script)
        return finish(sys.executable, *options, "-c", code, env=environment)

    return run


@pytest.fixture
def kept(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the same under `moored run`, and see what it counted."""

    def run(script: str, *options: str, **variables: str) -> Ending:
        code = PREAMBLE + textwrap.dedent(script)
        path = tmp_path / "counts.json"
        path.unlink(missing_ok=True)
        words = (LAUNCHER, "run", f"--json={path}", *options, "-c", code)
        ending = finish(*words, env=environment, **variables)
        if path.exists():
            ending.row = json.loads(path.read_text())["rows"][0]
        return ending

    return run


@pytest.fixture
def moored_run(environment: dict[str, str]) -> Run:
    """Run `moored run` with these words."""

    def run(*words: str | Path, stdin: str = "", **variables: str) -> Ending:
        return finish(LAUNCHER, "run", *words, env=environment, stdin=stdin, **variables)

    return run
