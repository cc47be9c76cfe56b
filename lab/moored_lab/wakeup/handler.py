"""Handler: the Python work that every mode does for an event, cut to a length in microseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import thread_time_ns

FrameHandler = Callable[[int], None]
RequestHandler = Callable[[str, str, int], bytes]

ROUNDS = 9
ROUND_NS = 4_000_000
CORRECTIONS = 3


def make(loops: int) -> FrameHandler:
    """Make the handler: a small dict update, a conversion, and a counted loop for the length."""
    recent: dict[int, str] = {}

    def handle(sequence: int) -> None:
        recent[sequence & 63] = str(sequence)
        for _ in range(loops):
            pass

    return handle


def make_http(handle: FrameHandler) -> RequestHandler:
    """Make the handler for requests: the same work, and a body from method and path."""

    def respond(method: str, path: str, sequence: int) -> bytes:
        handle(sequence)
        return f"{method} {path}\n".encode("latin-1")

    return respond


@dataclass(frozen=True)
class Calibrated:
    """A handler of the length asked for, as near as one loop comes to it."""

    handle: FrameHandler
    loops: int
    measured_us: float


def calibrate(microseconds: float) -> Calibrated:
    """Find the loop count for a call that takes that long on this thread, in this process.

    The time that is told is measured, back to back: in the server a call costs more, because it
    comes with cold caches, and that is part of what the modes are compared on.
    """
    empty_ns = _ns_a_call(make(0))
    wanted_ns = microseconds * 1e3
    per_loop_ns = max((_ns_a_call(make(1000)) - empty_ns) / 1000, 0.1)
    loops = max(0, round((wanted_ns - empty_ns) / per_loop_ns))
    measured_ns = _ns_a_call(make(loops))
    for _ in range(CORRECTIONS):
        if loops == 0 or abs(measured_ns - wanted_ns) <= 0.02 * wanted_ns:
            break
        # In proportion, so that one disturbed measurement cannot take the work away.
        loops = max(1, round(loops * wanted_ns / measured_ns))
        measured_ns = _ns_a_call(make(loops))
    return Calibrated(make(loops), loops, measured_ns / 1e3)


def _ns_a_call(handle: FrameHandler) -> float:
    """Measure one call: the median of several rounds, each long enough for the clock.

    By the thread's CPU clock: when others are busy on the machine, the work is still the same.
    """
    calls = 1
    while _round_ns(handle, calls) < ROUND_NS / 2:
        calls *= 2
    return median(_round_ns(handle, calls) / calls for _ in range(ROUNDS))


def _round_ns(handle: FrameHandler, calls: int) -> int:
    start = thread_time_ns()
    for sequence in range(calls):
        handle(sequence)
    return thread_time_ns() - start
