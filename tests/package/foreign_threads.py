"""Native threads that call Python by ctypes, for scripts that run in a process of their own."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise

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


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def heap_bytes() -> int:
    """Return how much of malloc's memory is in use; with PYTHONMALLOC=malloc that is Python's too.

    What is resident instead also depends on which thread came late, and on the kernel.
    """
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _MallInfo
    now = ask()
    return int(now.uordblks + now.hblkhd)


def until_main_is_alone() -> None:
    """Wait until all other threads are gone, and so is all that was theirs.

    Python counts one as joined a little earlier.
    """
    until(lambda: len(os.listdir("/proc/self/task")) == 1)


def least_growth(step: Callable[[], object], rounds: int = 4) -> int:
    """Return by how many bytes each round of the same has grown the heap, at least.

    A leak grows in all rounds; what is freed late grows memory in one, and shrinks it in the next.
    In the first round, which does not count, much is made once and for all.
    """
    seen = []
    for _ in range(1 + rounds):
        step()
        seen.append(heap_bytes())
    return min(after - before for before, after in pairwise(seen[1:]))


HAS_CHUNKS = sys.version_info >= (3, 11)
"""What install() caches; see docs/use/callbacks.md."""
