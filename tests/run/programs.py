"""Runs programs and compiles the native parts that they use, for the tests beside it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limits import BUILD_S, HANG_S

HERE = Path(__file__).parent
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
def immortal(function):
    # Native threads may still call it while the interpreter frees everything.
    call = CALLBACK(function)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))
    return call
"""


THREE_VISITS = (
    PREAMBLE
    + """
caller.free.call_on_a_thread(CALLBACK(visit), 3)
print(visits, flush=True)
"""
)


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
        timeout=BUILD_S,
    )
    return target


def finish(words: list[str | Path], environment: dict[str, str], stdin: str = "") -> Ending:
    done = subprocess.run(
        [str(word) for word in words],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    return Ending(done.returncode, done.stdout, done.stderr)


def include_flags() -> list[str]:
    return [f"-I{sysconfig.get_path('include')}"]
