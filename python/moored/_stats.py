"""What stats() and Channel.stats() return. Their C++ structs say what each number means."""

from __future__ import annotations

from typing import TypedDict


class Stats(TypedDict):
    """What moored has done in this process: moored::state_stats and moored::chunk_stats."""

    attaches: int
    refusals: int
    states_made: int
    states_adopted: int
    states_kept: int
    states_freed: int
    states_forgotten: int
    overdue: int
    states_over_limit: int
    states_freed_late: int
    references_forgotten: int
    urgent_requests: int
    urgent_requests_denied: int
    chunk_hits: int
    chunk_misses: int
    chunks_held: int
    chunk_bytes: int


class Dropped(TypedDict):
    """Events that did not reach Python, by reason."""

    oldest: int
    newest: int
    rejected: int
    refused: int
    unconvertible: int
    undelivered: int


class ChannelStats(TypedDict):
    """What has happened to a channel's events: moored::channel_stats."""

    sent: int
    delivered: int
    dropped: Dropped
    batches: int
    largest_batch: int
    wakes: int
    interrupts: int
    entries: int
    waits: int
    depth: int
