"""Export: the Firefox profiler's processed format, version 57; later ones are upgraded from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from . import buckets, cost, firefox_markers, names, words
from .buckets import Bucket
from .findings import find_all
from .firefox_markers import Markers
from .firefox_tables import NATIVE, WAITING, Libraries, Strings, Tables
from .recording import Counts, Recording, Thread
from .verdict import verdict

GECKO_VERSION, PROCESSED_VERSION = 32, 57

MOST_THREADS = 200
"""The main thread and those that paid most; a track each."""

CATEGORIES = [
    {"name": "Other", "color": "grey", "subcategories": ["Other"]},
    {"name": "Native", "color": "blue", "subcategories": ["Other"]},
    {"name": "GIL", "color": "orange", "subcategories": ["Other"]},
]


def document(recording: Recording) -> dict[str, Any]:
    """Return the profile."""
    threads = _shown_threads(recording)
    strings = Strings()
    libraries = Libraries(str(recording.machine.get("architecture", "")))
    merged = buckets.of(recording, max(1, firefox_markers.MOST // (len(threads) + 2) - 1))
    findings = find_all(recording)
    made = []
    for at, thread in enumerate(threads):
        markers = Markers(strings)
        if at == 0:
            firefox_markers.of_findings(markers, findings, recording.seconds)
            firefox_markers.of_process(markers, merged)
        firefox_markers.of_thread(markers, merged, thread.tid)
        made.append(_thread(recording, thread, merged, Tables(strings, libraries), markers))
    said = verdict(recording, findings)
    return {
        "meta": _meta(recording, said, len(recording.threads) - len(threads)),
        "libs": libraries.array(),
        "pages": [],
        "threads": made,
        "shared": {
            "stringArray": strings.array(),
            "sources": {"id": [], "uuid": [], "filename": [], "length": 0},
        },
    }


def export(recording: Recording) -> str:
    """Return the profile's text."""
    return json.dumps(document(recording), separators=(",", ":")) + "\n"


def _shown_threads(recording: Recording) -> list[Thread]:
    """Return main, or a thread that stands for it, and then those that paid most."""
    by_cost = sorted(
        recording.threads,
        key=lambda one: (
            one.kind != "main",
            -cost.of_attaching(recording, one.counts),
            -one.cpu_ns,
        ),
    )
    if not by_cost or by_cost[0].kind != "main":
        by_cost.insert(0, Thread(recording.pid, "(process)", "main", Counts()))
    return by_cost[:MOST_THREADS]


def _meta(recording: Recording, said: str, left_out: int) -> dict[str, Any]:
    machine = {key: str(value) for key, value in recording.machine.items()}
    cpus = recording.machine.get("cpus")
    entries = {
        "Verdict": said,
        "Command": recording.command,
        "Python": recording.python,
        "moored": recording.moored,
        "Recording cost": words.time(recording.recording_ns),
        "Threads left out": str(max(0, left_out)),
    }
    return {
        "interval": 1e3 * recording.seconds / max(1, len(recording.samples)),
        "startTime": 1e3 * recording.started_unix_s,
        "abi": machine.get("architecture", ""),
        "misc": "moored doctor",
        "oscpu": " ".join(machine.get(key, "") for key in ("system", "release")).strip(),
        "platform": machine.get("system", ""),
        "processType": 0,
        "categories": CATEGORIES,
        "stackwalk": 1,
        "toolkit": "",
        "version": GECKO_VERSION,
        "preprocessedProfileVersion": PROCESSED_VERSION,
        "appBuildID": "",
        "physicalCPUs": cpus if isinstance(cpus, int) else 0,
        "logicalCPUs": cpus if isinstance(cpus, int) else 0,
        "CPUName": machine.get("processor", ""),
        "product": recording.command,
        "symbolicated": True,
        "markerSchema": firefox_markers.schema(),
        "importedFrom": f"moored {recording.moored}",
        "extensions": {"id": [], "name": [], "baseURL": [], "length": 0},
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
        "extra": [
            {
                "label": "moored doctor",
                "entries": [
                    {"label": label, "format": "string", "value": value}
                    for label, value in entries.items()
                ],
            }
        ],
    }


def _thread(
    recording: Recording,
    thread: Thread,
    merged: Sequence[Bucket],
    tables: Tables,
    markers: Markers,
) -> dict[str, Any]:
    samples = _samples(recording, thread, merged, tables)
    return {
        "name": thread.name or f"thread {thread.tid}",
        "isMainThread": thread.kind == "main",
        "processType": "default",
        "processName": recording.command,
        "processStartupTime": 0,
        "processShutdownTime": None,
        "registerTime": 0,
        "unregisterTime": None,
        "pausedRanges": [],
        "pid": str(recording.pid),
        "tid": thread.tid,
        "samples": samples,
        "markers": markers.as_json(),
        **tables.as_json(),
    }


def _samples(
    recording: Recording, thread: Thread, merged: Sequence[Bucket], tables: Tables
) -> dict[str, Any]:
    """Return the CPU use over time, and the stacks with what they took, spread evenly over it."""
    end = 1e3 * recording.seconds
    stacks = _weighted_stacks(recording, thread, tables)
    places = merged or [Bucket(0.0, recording.seconds)]
    rows: list[tuple[float, int | None, float, int]] = []
    done = 0
    for at, one in enumerate(places, 1):
        percent = one.cpu_percent.get(thread.tid, 0.0)
        used_us = round(1e4 * percent * (one.end_s - one.start_s))
        until = len(stacks) * at // len(places)
        for stack, ms in stacks[done:until] or [(None, 0.0)]:
            rows.append((min(end, 1e3 * one.end_s), stack, ms, used_us))
            used_us = 0  # it is the first row's: those at the same time have none left
        done = until
    rows.append((end, None, 0.0, 0))  # what comes after the last sample is cut off
    return {
        "time": [row[0] for row in rows],
        "stack": [row[1] for row in rows],
        "weight": [row[2] for row in rows],
        "weightType": "tracing-ms",
        "threadCPUDelta": [row[3] for row in rows],
        "length": len(rows),
    }


def _weighted_stacks(
    recording: Recording, thread: Thread, tables: Tables
) -> list[tuple[int | None, float]]:
    sites = {site.key: site for site in recording.sites}
    found: list[tuple[int | None, float]] = []
    for key, counts in thread.sites:
        if key not in sites:
            continue
        prefix: int | None = None
        for frame in reversed(sites[key].frames):
            name = frame.symbol or names.frame_name(frame)
            prefix = tables.stack(name, frame, prefix, NATIVE)
        work = cost.of_attaching(recording, counts) - counts.wait_ns
        for name, ns, category in (
            ("attach and release", work, NATIVE),
            ("wait for the GIL", counts.wait_ns, WAITING),
        ):
            if ns > 0:
                found.append((tables.stack(name, None, prefix, category), ns / 1e6))
    return found
