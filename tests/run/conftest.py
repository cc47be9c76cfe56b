"""Runs programs stock and under `moored run`, and builds the native parts that they use, once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
LIMIT_SECONDS = 60
LAUNCHER = Path(sys.executable).with_name("moored")

PREAMBLE = """
import ctypes, os, sys, threading
import caller
from caller import CALLBACK
here = threading.local()
visits = []
def visit():
    here.visits = getattr(here, "visits", 0) + 1
    visits.append(here.visits)
"""

CALLER = """
import ctypes, os
CALLBACK = ctypes.CFUNCTYPE(None)
_path = os.path.join(os.path.dirname(__file__), "native_caller.so")
free = ctypes.CDLL(_path)     # lets go of the GIL
holding = ctypes.PyDLL(_path)  # keeps it
for _library in (free, holding):
    for _name in ("call_on_a_thread", "hammer", "start_thread"):
        getattr(_library, _name).argtypes = [CALLBACK, ctypes.c_long]
    _library.call_on_threads.argtypes = [CALLBACK, ctypes.c_long, ctypes.c_long]
free.get_end_with_seven.restype = ctypes.c_void_p

def immortal(function):
    # Native threads may still call it while the interpreter frees everything.
    call = CALLBACK(function)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))
    return call

def end_with_seven():
    # As soon as the interpreter has ended; see native_caller.c.
    assert ctypes.pythonapi.Py_AtExit(ctypes.c_void_p(free.get_end_with_seven())) == 0
"""


THREE_VISITS = PREAMBLE + """
caller.free.call_on_a_thread(CALLBACK(visit), 3)
print(visits, flush=True)
"""


@dataclass
class Ending:
    """What a process left behind."""

    code: int
    out: str
    err: str
    row: dict[str, Any] = field(default_factory=dict)


def compile_c(source: Path, target: Path, *flags: str, compiler: str = "cc") -> Path:
    subprocess.run(
        [compiler, "-O2", "-pthread", "-Wall", "-Wextra", str(source), *flags, "-o", str(target)],
        check=True,
        timeout=LIMIT_SECONDS,
    )
    return target


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH: caller and its native part, and the program three_visits."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("native")
    compile_c(HERE / "native_caller.c", folder / "native_caller.so", "-shared", "-fPIC")
    (folder / "caller.py").write_text(CALLER)
    (folder / "three_visits.py").write_text(THREE_VISITS)
    return folder


@pytest.fixture
def environment(native: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(native), "PYTHONWARNINGS": "ignore"}


def finish(words: list[str | Path], environment: dict[str, str], stdin: str = "") -> Ending:
    done = subprocess.run(
        [str(word) for word in words],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    return Ending(done.returncode, done.stdout, done.stderr)


Run = Callable[..., Ending]


@pytest.fixture
def stock(environment: dict[str, str]) -> Run:
    """Run a script, which may use caller and visit, as it is."""

    def run(script: str, *options: str) -> Ending:
        code = PREAMBLE + textwrap.dedent(script)
        return finish([sys.executable, *options, "-c", code], environment)

    return run


@pytest.fixture
def kept(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the same under `moored run`, and see what it counted."""

    def run(script: str, *options: str, **variables: str) -> Ending:
        code = PREAMBLE + textwrap.dedent(script)
        path = tmp_path / "counts.json"
        path.unlink(missing_ok=True)
        ending = finish(
            [LAUNCHER, "run", f"--json={path}", *options, "-c", code], environment | variables
        )
        if path.exists():
            ending.row = json.loads(path.read_text())["rows"][0]
        return ending

    return run


@pytest.fixture
def moored_run(environment: dict[str, str]) -> Run:
    """Run `moored run` with these words."""

    def run(*words: str | Path, stdin: str = "", **variables: str) -> Ending:
        return finish([LAUNCHER, "run", *words], environment | variables, stdin)

    return run


def include_flags() -> list[str]:
    return [f"-I{sysconfig.get_path('include')}"]
