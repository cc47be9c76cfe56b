"""Runs programs under `moored doctor`, with a native library whose calls are known."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.building import compile_library
from support.processes import Ending, run_moored

from moored.doctor import capture
from moored.doctor.recording import Recording

HERE = Path(__file__).parent
PREAMBLE = """
import ctypes, os, sys, threading, time
parts = ctypes.CDLL(os.environ["KNOWN_PARTS"])
CALLBACK = ctypes.CFUNCTYPE(None)
"""


@dataclass
class Visit:
    """What `moored doctor` did and recorded."""

    ending: Ending
    path: Path
    recordings: list[Recording] = field(default_factory=list)

    @property
    def own(self) -> Recording:
        """The recording of the program itself."""
        return self.recordings[0]

    def report(self, form: str) -> str:
        """Return a report of the program itself."""
        ending = run_moored("doctor", "report", self.path, "-f", form, "-o", "-")
        assert ending.code == 0, ending.err
        return ending.out

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        read: dict[str, Any] = json.loads(self.report("json"))
        return read


@pytest.fixture(scope="session")
def known_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library."""
    target = tmp_path_factory.mktemp("parts") / "known_parts.so"
    compile_library(HERE / "known_parts.c", target)
    return target


@pytest.fixture
def doctor(known_parts: Path, tmp_path: Path) -> Callable[..., Visit]:
    """Run a script under `moored doctor`."""

    def run(script: str, *options: str, limit: float | None = None) -> Visit:
        path = tmp_path / "capture"
        code = PREAMBLE + textwrap.dedent(script)
        environment = os.environ | {"KNOWN_PARTS": str(known_parts), "PYTHONWARNINGS": "ignore"}
        ending = run_moored("doctor", f"-o={path}", *options, "-c", code, env=environment)
        found = [path] if path.exists() else []
        found += sorted(path.parent.glob("capture.*"))
        return Visit(ending, path, [capture.read(one) for one in found])

    return run
