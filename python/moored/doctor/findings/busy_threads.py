"""Rule: native threads wait for the GIL while a thread that is not main holds it."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import names, words
from moored.doctor.recording import Recording, Thread

from .finding import Finding, rerun
from .sites import by

LEAST_WAIT_NS = 50_000_000
"""In all."""

LEAST_MEAN_NS = 50_000
"""For each call."""

LEAST_SHARE_OF_TIME = 0.01
"""Of the time that was recorded."""

RELEASE = "Py_BEGIN_ALLOW_THREADS  /* the work that needs no Python */  Py_END_ALLOW_THREADS"


def find(recording: Recording) -> Iterator[Finding]:
    """Find the sites that wait for another thread than main."""
    total = recording.total
    wait = total.wait_for_others_ns
    if wait < max(LEAST_WAIT_NS, LEAST_SHARE_OF_TIME * 1e9 * recording.seconds):
        return
    if wait < LEAST_MEAN_NS * total.calls:
        return
    holder = _holder(recording)
    behind = f", mostly {names.thread_name(holder)}" if holder else ""
    yield Finding(
        rule="busy-threads",
        title=f"Native threads waited for the GIL behind other threads{behind}",
        cost_ns=wait,
        share_of_cpu=0.0,
        site_keys=by(recording.sites, lambda counts: counts.wait_for_others_ns),
        remedy=RELEASE if recording.urgent else rerun(recording, "--urgent"),
        why=_why(recording, holder),
    )


def _holder(recording: Recording) -> Thread | None:
    """Return the thread beside main that held the GIL longest; not the one that mostly waited."""
    others = [one for one in recording.threads if one.kind != "main" and one.counts.hold_ns]
    waits = sum(one.counts.wait_for_others_ns for one in recording.threads)
    others = [one for one in others if 2 * one.counts.wait_for_others_ns <= waits]
    return max(others, key=lambda one: one.counts.hold_ns, default=None)


def _why(recording: Recording, holder: Thread | None) -> str:
    held = (
        f"{names.thread_name(holder)} held it for {words.time(holder.counts.hold_ns)} in all, "
        f"up to {words.time(holder.counts.longest_hold_ns)} at a time. "
        if holder
        else ""
    )
    if recording.urgent:
        return held + "Asking it at once did not help: let go of the GIL around native work there."
    return held + "With --urgent a thread that runs Python is asked for the GIL at once."
