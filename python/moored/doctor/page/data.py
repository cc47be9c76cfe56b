"""Data: what the page's script draws: series over time, tables, and the flame graph."""

from __future__ import annotations

from typing import Any

from moored.doctor import buckets, cost, names, stacks
from moored.doctor.recording import OTHERS, Recording, Site, Thread

from . import flame

MOST_POINTS = 600
"""Of a series over time."""

MOST_BANDS = 8
"""Threads that have a band of their own beside main; the others share one."""


def of(recording: Recording) -> dict[str, Any]:
    """Return the object that the page carries."""
    return {
        "cpu": _cpu(recording),
        "waits": _waits(recording),
        "flame": flame.as_json(flame.tree(stacks.of(recording))),
        "sites": [_site(recording, site) for site in recording.sites],
        "threads": [_thread(thread) for thread in recording.threads],
    }


def _cpu(recording: Recording) -> dict[str, Any]:
    """Return bands of CPU use: main first, then the busiest threads, then all others."""
    merged = buckets.of(recording, MOST_POINTS)
    sums: dict[int, float] = {}
    for one in merged:
        for tid, percent in one.cpu_percent.items():
            sums[tid] = sums.get(tid, 0.0) + percent
    main = {thread.tid for thread in recording.threads if thread.kind == "main"}
    ranked = sorted(sums.keys() - main - {OTHERS}, key=lambda tid: -sums[tid])[:MOST_BANDS]
    called = {thread.tid: names.thread_name(thread) for thread in recording.threads}
    bands: list[tuple[str, set[int]]] = [("main", main & sums.keys())]
    bands += [(called.get(tid, f"thread {tid}"), {tid}) for tid in ranked]
    if others := sums.keys() - main - set(ranked):
        bands.append(("others", others))
    return {
        "at_s": [round(one.end_s, 3) for one in merged],
        "bands": [
            {
                "name": name,
                "percent": [
                    round(sum(one.cpu_percent.get(tid, 0.0) for tid in tids), 1) for one in merged
                ],
            }
            for name, tids in bands
        ],
    }


def _waits(recording: Recording) -> dict[str, Any]:
    """Return temporary states and ms of waiting for the GIL, each per second."""
    merged = buckets.of(recording, MOST_POINTS)
    lengths = [max(1e-9, one.end_s - one.start_s) for one in merged]
    pairs = list(zip(merged, lengths, strict=True))
    return {
        "at_s": [round(one.end_s, 3) for one in merged],
        "states": [round(one.temporary_states / length, 1) for one, length in pairs],
        "wait_ms": [round(one.gil_wait_ns / 1e6 / length, 2) for one, length in pairs],
    }


def _site(recording: Recording, site: Site) -> list[Any]:
    counts = site.counts
    ns = cost.of_attaching(recording, counts)
    return [
        names.short_site_name(site),
        names.binding_name(site),
        ns,
        counts.calls,
        counts.temporary_states,
        round(max(0, ns - counts.wait_ns) / max(1, counts.calls)),
        counts.wait_ns,
        counts.longest_wait_ns,
        counts.hold_ns,
    ]


def _thread(thread: Thread) -> list[Any]:
    counts = thread.counts
    return [
        names.thread_name(thread),
        names.thread_kind(thread),
        thread.tid,
        counts.calls,
        counts.temporary_states,
        counts.wait_ns,
        counts.hold_ns,
        counts.longest_hold_ns,
        thread.cpu_ns,
        thread.minor_faults,
        thread.voluntary_switches,
        thread.involuntary_switches,
    ]
