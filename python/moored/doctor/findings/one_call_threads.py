"""Rule: native threads live for one call each."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import words
from moored.doctor.recording import Recording

from .finding import Finding, is_worth_it

LEAST_THREADS = 50

THREAD_NS = 25_000
"""What making and joining a native thread costs at least, with its stack."""


def find(recording: Recording) -> Iterator[Finding]:
    """Find threads that came once: nothing can be kept for them."""
    threads = recording.threads_of_one_call
    single = [one for one in recording.threads if one.kind == "foreign" and one.counts.calls == 1]
    work = sum(one.counts.work_ns for one in single)
    cost = threads * THREAD_NS + work
    if threads < LEAST_THREADS or not is_worth_it(recording, cost):
        return
    keys = {key: None for one in single for key, _ in one.sites}
    yield Finding(
        rule="one-call-threads",
        title=f"{words.count(threads, 'native thread')} called Python once each and ended",
        cost_ns=cost,
        share_of_cpu=recording.share_of_cpu(cost),
        site_keys=tuple(keys),
        remedy="moored.install()",
        why="A state that is kept ends with its thread, so nothing is kept for these; install() "
        "makes their temporary states cheap. Threads of a pool, which stay, would cost less still; "
        f"a thread alone costs some {words.time(THREAD_NS)}.",
    )
