"""Rule: a foreign thread holds the GIL long, and others wait meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import names, words
from moored.doctor.recording import Recording, Thread

from .finding import Finding

LEAST_LONGEST_NS = 20_000_000
"""At a time: a thread that runs Python would have been asked four times to let go."""

LEAST_SHARE_OF_TIME = 0.05
"""Of the time that was recorded, in all."""

LEAST_WAIT_NS = 20_000_000
"""Of all other threads, meanwhile: where nothing waits, holding costs nothing."""

RELEASES = {
    "pybind11": "pybind11::gil_scoped_release let_go;  // around the work that needs no Python",
    "nanobind": "nanobind::gil_scoped_release let_go;  // around the work that needs no Python",
    "Cython": "with nogil:  # around the work that needs no Python",
    "PyO3": "python.detach(|| ())  // with the work that needs no Python in it",
}
RELEASE = "Py_BEGIN_ALLOW_THREADS  /* the work that needs no Python */  Py_END_ALLOW_THREADS"
LEAVE = (
    "executor.submit(work)  # from the callback: concurrent.futures, in a process for pure Python"
)


def find(recording: Recording) -> Iterator[Finding]:
    """Find the threads that hold long."""
    waits = sum(thread.counts.wait_ns for thread in recording.threads)
    for thread in recording.threads:
        counts = thread.counts
        if thread.kind != "foreign" or counts.longest_hold_ns < LEAST_LONGEST_NS:
            continue
        if counts.hold_ns < LEAST_SHARE_OF_TIME * 1e9 * recording.seconds:
            continue
        others_waited = waits - counts.wait_ns
        if others_waited >= LEAST_WAIT_NS:
            yield _finding(recording, thread, others_waited)


def _finding(recording: Recording, thread: Thread, others_waited: int) -> Finding:
    counts = thread.counts
    share = words.percent(counts.hold_ns / max(1.0, 1e9 * recording.seconds))
    held = sorted(thread.sites, key=lambda one: -one[1].hold_ns)
    return Finding(
        rule="long-holds",
        title=f"Native thread {names.thread_name(thread)} held the GIL for up to "
        f"{words.time(counts.longest_hold_ns)} at a time",
        cost_ns=min(counts.hold_ns, others_waited),
        share_of_cpu=0.0,
        site_keys=tuple(key for key, its in held if its.hold_ns),
        remedy=_remedy(recording, held[0][0] if held else None),
        why=f"It held it {share} of the time. "
        "What holds it that long at a time runs native code: Python itself would have let go.",
    )


def _remedy(recording: Recording, key: int | None) -> str:
    """Return how the binding of the site that holds longest lets go."""
    binding = next((site.binding for site in recording.sites if site.key == key), "")
    if binding in ("ctypes", "cffi", "PyGObject", "Python"):
        return LEAVE
    return RELEASES.get(binding, RELEASE)
