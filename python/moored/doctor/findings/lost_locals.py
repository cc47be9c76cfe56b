"""Rule: what callbacks stored in thread-locals was lost with a temporary state."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import words
from moored.doctor.recording import Recording

from .finding import Finding, rerun
from .sites import by

LEAST_LOST = 10
"""Fewer may be the last state of each thread, which ends with it in any case."""


def find(recording: Recording) -> Iterator[Finding]:
    """Find thread-locals that did not last from one call to the next."""
    # What a thread that calls once leaves behind would have ended with the thread.
    lost = recording.locals_lost - recording.threads_of_one_call
    if lost < LEAST_LOST:
        return
    yield Finding(
        rule="lost-locals",
        title=f"{words.count(lost, 'temporary thread state')} took thread-locals along",
        cost_ns=0,
        share_of_cpu=0.0,
        site_keys=by(recording.sites, lambda counts: counts.states_with_locals),
        remedy="@moored.keeps_thread" if recording.kept else rerun(recording),
        why="threading.local, context variables and trace functions belong to a thread state, and "
        "a temporary one takes them along: a connection or a cache in them is made anew at every "
        "call. With a kept state they last as long as their thread.",
    )
