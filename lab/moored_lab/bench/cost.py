"""Where the price of a temporary thread state comes from: its parts, its whole, their shares."""

from __future__ import annotations

import platform
import sys
import threading
from dataclasses import dataclass
from typing import Any

from moored_lab.bench.rounds import Samples, measure, quiet_cpu
from moored_lab.report.cost_chart import readable_ns
from moored_lab.report.progress import Progress, silent

WHOLE = "temporary"
KEPT = "kept"


@dataclass(frozen=True)
class Operation:
    """One measured row: its key in `moored_lab._cost` and what it is in words."""

    key: str
    name: str


@dataclass(frozen=True)
class Part:
    """One slice of the whole; `since` is the first CPython whose new states need it."""

    key: str
    name: str
    since: tuple[int, int] = (3, 0)
    in_new: bool = False
    """Whether PyThreadState_New or Delete does it, so that the row `state` has it in it."""

    @property
    def is_here(self) -> bool:
        """Whether this interpreter's temporary states have this part."""
        return sys.version_info[:2] >= self.since


MEASURED = (
    Operation("tls_pthread", "TLS: 2 sets and 2 gets, pthread_*specific"),
    Operation("tls_python", "TLS: 2 sets and 2 gets, PyThread_tss_*"),
    Operation("malloc", "malloc: calloc and free of a state's {bytes} bytes"),
    Operation("gettid", "system call: gettid"),
    Operation("stack_bounds", "stack bounds: pthread_getattr_np"),
    Operation("state", "thread state: New, Clear, Delete, GIL held"),
    Operation("chunk_mapped", "data-stack chunk: mmap and munmap of 16 KiB"),
    Operation("chunk_touched", "data-stack chunk: mmap, first touch, munmap"),
    Operation("gil", "GIL: take and drop, state kept"),
    Operation("ensure_nested", "Ensure and Release, nested"),
    Operation("call", "Python call: callback that only returns"),
    Operation("call_locals", "Python call: callback with thread-locals"),
    Operation("temporary_no_call", "temporary state, no Python frame"),
    Operation(WHOLE, "temporary state + Python frame"),
    Operation("temporary_locals", "temporary state + thread-locals"),
    Operation(KEPT, "kept state + Python frame"),
    Operation("kept_locals", "kept state + thread-locals"),
)

CHUNK = Part("chunk_touched", "the data-stack chunk", since=(3, 11))
# Disjoint, so that the shares add up. `state_code` and `rest` are what is left over: see slices().
PARTS = (
    Part("tls_python", "TLS"),
    Part("malloc", "malloc", in_new=True),
    Part("gettid", "the gettid system call", since=(3, 11), in_new=True),
    Part("stack_bounds", "the stack bounds", since=(3, 14)),
    Part("state_code", "the state's set-up and clearing"),
    CHUNK,
    Part("gil", "the GIL"),
    Part("call", "the Python call"),
    Part("rest", "the rest"),
)
GUESSES = ("tls_python", "malloc", "gil")  # what the report and its readers guessed


@dataclass(frozen=True)
class Slice:
    """A part's nanoseconds, and its share of the whole (None: this CPython has no such part)."""

    part: Part
    ns: float | None
    share: float | None


@dataclass(frozen=True)
class Result:
    """Every operation's samples, and the size of a thread state that was allocated."""

    samples: dict[str, Samples]
    state_bytes: int

    def slices(self) -> list[Slice]:
        """Cut the whole into its parts."""
        ns = {key: samples.median for key, samples in self.samples.items()}
        within = sum(ns[part.key] for part in PARTS if part.in_new and part.is_here)
        ns["state_code"] = max(0.0, ns["state"] - within)
        ns["rest"] = 0.0
        known = sum(ns[part.key] for part in PARTS if part.is_here)
        # The parts are timed one by one: their sum can come out a little above the whole.
        ns["rest"] = max(0.0, ns[WHOLE] - known)
        total = max(ns[WHOLE], known)
        return [
            Slice(part, ns[part.key], ns[part.key] / total)
            if part.is_here
            else Slice(part, None, None)
            for part in PARTS
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Measured rows first, then the shares."""
        measured = [
            {
                "name": operation.name.format(bytes=self.state_bytes),
                "key": operation.key,
                **self.samples[operation.key].as_row(),
            }
            for operation in MEASURED
        ]
        shares = [
            {
                "name": f"share: {piece.part.name}",
                "part": piece.part.name,
                "key": f"share_{piece.part.key}",
                "ns_median": None if piece.ns is None else round(piece.ns, 2),
                "share": None if piece.share is None else round(piece.share, 4),
                "note": why_absent(piece.part),
            }
            for piece in self.slices()
        ]
        return measured + shares

    def verdict(self) -> str:
        """TLS, malloc, the GIL or something else? In one computed sentence."""
        whole = self.samples[WHOLE].median
        ratio = whole / self.samples[KEPT].median
        shares = {s.part.key: s.share for s in self.slices() if s.share is not None}
        names = {part.key: part.name for part in PARTS}
        largest = max(shares, key=lambda key: shares[key])
        guessed = ", ".join(f"{names[key]} {shares[key]:.1%}" for key in GUESSES)
        if shares[largest] < 0.5:
            answer = "No part stands out: the largest is"
        elif largest in GUESSES:
            answer = "So it is"
        else:
            answer = "So it is none of these three but"
        missing = "" if CHUNK.is_here else f", and {CHUNK.name} is {why_absent(CHUNK)}"
        return (
            f"On CPython {platform.python_version()} a temporary state with a Python frame costs "
            f"{readable_ns(whole)}, {ratio:.1f} x a kept one. Of that: {guessed}. "
            f"{answer} {names[largest]}, {shares[largest]:.1%}{missing}."
        )


def why_absent(part: Part) -> str:
    """Say why a part has no share here; empty when it has one."""
    if part.is_here:
        return ""
    return f"no part of it: new in CPython {part.since[0]}.{part.since[1]}"


_local = threading.local()


def only_returns() -> None:
    """Do nothing: the smallest callback that still is a Python frame."""


def uses_locals() -> None:
    """Do what real callbacks do: ask for the current thread and use a thread-local."""
    threading.current_thread()
    _local.calls = getattr(_local, "calls", 0) + 1


def run(rounds: int, progress: Progress = silent) -> Result:
    """Measure everything, interleaved, on one native thread at a time."""
    from moored_lab import _cost

    bench = _cost.parts(only_returns, uses_locals, quiet_cpu())
    return Result(measure(bench, rounds, progress), _cost.STATE_BYTES)
