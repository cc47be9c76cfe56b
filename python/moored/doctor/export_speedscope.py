"""Export: speedscope's file: a profile of the whole process, and one for each costly thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from . import stacks
from .recording import Recording
from .stacks import Stack

SCHEMA = "https://www.speedscope.app/file-format-schema.json"

MOST_THREADS = 50
"""So many threads have a profile of their own, those that paid most."""


def document(recording: Recording) -> dict[str, Any]:
    """Return the file's object."""
    found = list(stacks.of(recording))
    frames: dict[str, int] = {}
    profiles = [_profile("all threads", found, frames)]
    by_thread: dict[str, list[Stack]] = {}
    for stack in found:
        by_thread.setdefault(stack.thread, []).append(stack)
    if len(by_thread) > 1:
        costliest = sorted(by_thread, key=lambda one: -sum(stack.ns for stack in by_thread[one]))
        profiles += [_profile(one, by_thread[one], frames) for one in costliest[:MOST_THREADS]]
    return {
        "$schema": SCHEMA,
        "shared": {"frames": [{"name": name} for name in frames]},
        "profiles": profiles,
        "name": f"{recording.command}: entering Python from native threads",
        "activeProfileIndex": 0,
        "exporter": f"moored {recording.moored}",
    }


def export(recording: Recording) -> str:
    """Return the file's text."""
    return json.dumps(document(recording), separators=(",", ":")) + "\n"


def _profile(name: str, found: Sequence[Stack], frames: dict[str, int]) -> dict[str, Any]:
    sums: dict[tuple[str, ...], int] = {}
    for stack in found:
        sums[stack.frames] = sums.get(stack.frames, 0) + stack.ns
    ordered = sorted(sums.items())
    return {
        "type": "sampled",
        "name": name,
        "unit": "nanoseconds",
        "startValue": 0,
        "endValue": sum(sums.values()),
        "samples": [[frames.setdefault(one, len(frames)) for one in key] for key, _ in ordered],
        "weights": [ns for _, ns in ordered],
    }
