"""Rule: an event loop is woken for every single event."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import words
from moored.doctor.recording import Recording

from .finding import Finding, is_worth_it

LEAST_A_SECOND = 500
"""Below it there is little to put into one batch."""

WAKE_NS = 8_000
"""What call_soon_threadsafe costs at least: a handle, a byte through a pipe, a turn of the loop."""


def find(recording: Recording) -> Iterator[Finding]:
    """Find storms of call_soon_threadsafe."""
    calls = recording.threadsafe_calls
    cost = calls * WAKE_NS
    if calls < LEAST_A_SECOND * recording.seconds or not is_worth_it(recording, cost):
        return
    rate = calls / max(recording.seconds, 1e-9)
    yield Finding(
        rule="loop-wakes",
        title=f"call_soon_threadsafe woke an event loop {calls:,} times, {rate:,.0f} a second",
        cost_ns=cost,
        share_of_cpu=recording.share_of_cpu(cost),
        site_keys=(),
        remedy="async for batch in moored.Channel(source): ...",
        why=f"Each is at least {words.time(WAKE_NS)} of the loop's thread. A channel gives what "
        "has come meanwhile as one batch, for one wake, and its sender needs no GIL.",
    )
