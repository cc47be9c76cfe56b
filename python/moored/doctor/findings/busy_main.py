"""Rule: native threads wait for the GIL while the main thread runs Python."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import words
from moored.doctor.recording import Recording

from .finding import Finding, rerun
from .sites import by

LEAST_WAIT_NS = 50_000_000
"""In all."""

LEAST_MEAN_NS = 100_000
"""For each call: below it there is next to no wait that a remedy would shorten."""

LEAST_SHARE_OF_TIME = 0.01
"""Of the time that was recorded."""

LARGER_BUDGET = "--urgent=25%"


def find(recording: Recording) -> Iterator[Finding]:
    """Find the sites that wait for main."""
    total = recording.total
    wait = total.wait_for_main_ns
    if wait < max(LEAST_WAIT_NS, LEAST_SHARE_OF_TIME * 1e9 * recording.seconds):
        return
    if wait < LEAST_MEAN_NS * total.calls:
        return
    interval = words.time(1e9 * recording.switch_interval_s)
    yield Finding(
        rule="busy-main",
        title="Native threads waited for the GIL while the main thread was busy in Python",
        cost_ns=wait,
        share_of_cpu=0.0,
        site_keys=by(recording.sites, lambda counts: counts.wait_for_main_ns),
        remedy=rerun(recording, LARGER_BUDGET if recording.urgent else "--urgent"),
        why=f"The longest wait took {words.time(total.longest_wait_ns)}, the mean "
        f"{words.time(wait / max(1, total.calls))} a call. A thread that runs Python is asked to "
        f"let go only when another has waited for the switch interval, {interval}. "
        + (
            "It ran with --urgent, and so its budget was used up: a larger one lets main lose more."
            if recording.urgent
            else "With --urgent it is asked at once, and loses at most a tenth of its time by it."
        ),
    )
