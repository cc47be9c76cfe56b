"""Native threads that call Python by ctypes, for scripts that run in a process of their own."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import moored

_native = ctypes.CDLL(os.environ["FOREIGN_THREADS"])
_CALLBACK = ctypes.CFUNCTYPE(None)
_callbacks: list[object] = []

_here = threading.local()


def _native_callback(function: Callable[[], object]) -> object:
    callback = _CALLBACK(function)
    _callbacks.append(callback)
    return callback


def on_foreign_threads(function: Callable[[], object], threads: int = 1, calls: int = 1) -> None:
    """Call on so many native threads at once, so often on each."""
    assert _native.call_together(_native_callback(function), threads, calls) == 0


def on_threads_in_turn(function: Callable[[], object], threads: int) -> None:
    """Call once on each of so many native threads, which live one after the other."""
    assert _native.call_in_turn(_native_callback(function), threads) == 0


def on_thread_that_stays(function: Callable[[], object], calls: int = 1) -> None:
    """Call on a native thread that then waits until the process ends."""
    assert _native.call_on_thread_that_stays(_native_callback(function), calls) == 0


def visit() -> int:
    """Return how often this thread's threading.local was here, this time included."""
    _here.visits = getattr(_here, "visits", 0) + 1
    return int(_here.visits)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does; the process's time limit ends it."""
    while not condition():
        time.sleep(0.001)


def until_nothing_is_kept() -> None:
    """Wait until the states of the threads that have ended are freed."""
    until(lambda: moored.stats()["states_kept"] == 0)


def resident_kb() -> int:
    """Return how much of this process is in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


HAS_CHUNKS = sys.version_info >= (3, 11)
"""What install() caches; see docs/install.md."""
