"""Rule: threads of a pool keep their states and do nothing any more."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import words
from moored.doctor.recording import OTHERS, Recording, Thread

from .finding import Finding

LEAST_THREADS = 64
"""Fewer keep less than a megabyte."""

LEAST_IDLE_S = 5.0
"""Without any CPU time, at the end of the recording."""

LEAST_IDLE_SHARE = 0.5
"""Of the recording, likewise."""

LEAST_LIMIT = 16
"""The remedy leaves so many states at least: threads come back."""

QUIET_PERCENT = 1.0
"""Threads without samples of their own count as idle while all of them use less CPU together."""

RELEASE = "moored.release_thread()  # at the end of a thread's last callback before it idles"

STATE_BYTES = 6_000
"""What an idle kept state adds to the process's memory; chunks and thread-locals come on top."""


def find(recording: Recording) -> Iterator[Finding]:
    """Find threads that came, keep a state, and idle."""
    idle = _idle(recording)
    if len(idle) < LEAST_THREADS:
        return
    keys = {key: None for thread in idle for key, _ in thread.sites}
    alive = sum(one.kind == "foreign" and not one.exited for one in recording.threads)
    limit = max(LEAST_LIMIT, alive - len(idle))
    yield Finding(
        rule="idle-states",
        title=f"{words.count(len(idle), 'idle native thread')} keep their thread states",
        cost_ns=0,
        share_of_cpu=0.0,
        site_keys=tuple(keys),
        remedy=RELEASE if recording.kept else f"moored.set_kept_limit({limit})",
        why=f"Each holds {STATE_BYTES / 1000:.0f} kB of memory, and what its thread-locals hold, "
        "until the thread ends; a pool's may never. "
        + (
            "A thread that releases its state gets another at its next callback."
            if recording.kept
            else "With a limit, threads that come seldom let go of theirs at their next call."
        ),
    )


def _idle(recording: Recording) -> list[Thread]:
    """Return the threads that live, have found a kept state, and used no CPU for long."""
    since = recording.seconds - max(LEAST_IDLE_S, LEAST_IDLE_SHARE * recording.seconds)
    late = [sample for sample in recording.samples if sample.at_s > since]
    if since < 0 or not late:
        return []  # too short to tell, or not sampled
    active = {tid for sample in late for tid, percent in sample.cpu_percent.items() if percent > 0}
    others = sum(sample.cpu_percent.get(OTHERS, 0.0) for sample in late) / len(late)
    told = {tid for sample in recording.samples for tid in sample.cpu_percent}
    return [
        thread
        for thread in recording.threads
        if thread.kind == "foreign"
        and not thread.exited
        and thread.counts.calls > thread.counts.temporary_states
        and thread.tid not in active
        and (thread.tid in told or others < QUIET_PERCENT)
    ]
