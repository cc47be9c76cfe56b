"""Caller: the measured process. It makes callbacks through one binding, in one way, as it is told.

It runs as a script on the measured interpreter, and in the ways that do without moored it imports
nothing of it. It is told by JSON lines on stdin, and answers each on stdout.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_CALLS = 20
SETTLED_S = 10.0
"""How long states that are still being freed may take to be gone."""

Function = Callable[[], object]


class Callback(ctypes.Structure):
    """As in driver.c."""

    _fields_ = (("call", ctypes.c_void_p), ("context", ctypes.c_void_p))


class Order(ctypes.Structure):
    """As in driver.c."""

    _fields_ = (
        ("first", Callback),
        ("each", Callback),
        ("warm_calls", ctypes.c_long),
        ("calls", ctypes.c_long),
        ("by_hand", ctypes.c_int),
    )


class Caller:
    """One binding, used in one way."""

    def __init__(self, way: str, binding: str, driver: Path) -> None:
        self._free = ctypes.CDLL(str(driver))
        self._holding = ctypes.PyDLL(str(driver))
        for timed in (self._free.time_calls, self._free.time_threads):
            timed.argtypes = [ctypes.POINTER(Order), ctypes.c_long]
            timed.restype = ctypes.c_int64
        self._holding.count_states.restype = ctypes.c_long
        self._make = importlib.import_module(f"{binding}_callback").make
        self._by_hand = int(way == "by_hand")
        self._cpus = os.sched_getaffinity(0)
        self._local = threading.local()
        self._visits: list[int] = []
        functions: dict[str, Function] = {
            "empty": empty,
            "current_thread": current_thread,
            "logs": make_logging(),
            "visit": self._visit,
        }
        self._callbacks = {name: self._callback(made) for name, made in functions.items()}
        self._first = self._callback(first_in(way))

    def time(self, callback: str, threads: int, calls: int) -> dict[str, Any]:
        """Time `calls` calls on each of the threads, after the first ones of each thread."""
        # Several threads must be free to run at once.
        os.sched_setaffinity(0, {max(self._cpus)} if threads == 1 else self._cpus)
        order = self._order(callback, WARM_CALLS, calls)
        return {"event": "timed", "ns": made(self._free.time_calls(order, threads))}

    def churn(self, threads: int) -> dict[str, Any]:
        """Time threads that live one after the other, each for one callback."""
        # On one CPU: else a new thread's way to another one is most of what is measured. What
        # frees the states meanwhile is there too, so that its work counts.
        os.sched_setaffinity(0, {max(self._cpus)})
        order = self._order("empty", 0, 0)
        return {"event": "churned", "ns": made(self._free.time_threads(order, threads))}

    def visits(self) -> dict[str, Any]:
        """Tell whether a threading.local of one callback is there in the next."""
        self._visits.clear()
        made(self._free.time_calls(self._order("visit", 0, 3), 1))
        if len(self._visits) != 3:
            raise RuntimeError(f"3 callbacks were made, {len(self._visits)} arrived")
        return {"event": "visited", "survived": self._visits == [1, 2, 3]}

    def memory(self, states: int) -> dict[str, Any]:
        """Tell the resident memory, and how many thread states there are.

        More than `states` get some time to go: they may be freed after their thread has ended.
        """
        until = time.monotonic() + SETTLED_S
        while self._holding.count_states() > states and time.monotonic() < until:
            time.sleep(0.01)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        counted = self._holding.count_states()
        return {"event": "memory", "resident_bytes": resident, "states": counted}

    def _order(self, callback: str, warm_calls: int, calls: int) -> Order:
        each = self._callbacks[callback]
        return Order(self._first, each, warm_calls, calls, self._by_hand)

    def _callback(self, function: Function) -> Callback:
        return Callback(*self._make(function))

    def _visit(self) -> None:
        self._local.visits = getattr(self._local, "visits", 0) + 1
        self._visits.append(self._local.visits)


def empty() -> None:
    """Be the smallest callback that still is a Python frame."""


def current_thread() -> None:
    """Ask for the thread object, as every log record does."""
    threading.current_thread()


def make_logging() -> Function:
    """Make the callback that logs: the record is made, with its thread's name, and goes nowhere."""
    logger = logging.Logger("bench", logging.INFO)
    logger.addHandler(logging.NullHandler())

    def logs() -> None:
        logger.info("a callback")

    return logs


def first_in(way: str) -> Function:
    """Prepare the process for the way; return the callback that each thread makes first."""
    if way not in ("install", "keep_thread"):
        return empty
    import moored

    if way == "install":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # 3.10 has nothing to gain
            moored.install()
        return empty

    def keep() -> None:
        moored.keep_thread()

    return keep


def made(ns: int) -> int:
    """Pass the time on; -1 says that a thread could not be made."""
    if ns < 0:
        raise RuntimeError("the system gives no more threads")
    return ns


def answer(said: dict[str, Any]) -> None:
    """Say one thing to the process that measures."""
    print(json.dumps(said), flush=True)


def main(way: str, binding: str, modules: str, packages: str) -> int:
    """Do what the lines on stdin say, until they end."""
    # The binding's folder instead of this file's; what pip installed for it comes last.
    here = str(Path(__file__).parent)
    sys.path[:] = [
        str(Path(modules) / binding),
        *(one for one in sys.path if one != here),
        packages,
    ]
    caller = Caller(way, binding, Path(modules) / "driver.so")
    answer({"event": "ready"})
    for line in sys.stdin:
        order = json.loads(line)
        answer(getattr(caller, order.pop("do"))(**order))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
