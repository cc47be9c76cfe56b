"""Stacks: native stacks with what attaching at their end took; what flame graphs are made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import cost, names
from .recording import Counts, Recording, Site

ATTACHING = "[attach and release]"
FOR_MAIN = "[wait for the GIL: main]"
FOR_OTHERS = "[wait for the GIL: other threads]"


@dataclass(frozen=True)
class Stack:
    """Frames, outermost first, the last in brackets and for what the time went; `ns` is not 0."""

    thread: str
    tid: int
    frames: tuple[str, ...]
    ns: int
    calls: int


def of(recording: Recording) -> Iterator[Stack]:
    """Iterate over every thread's stacks, and over what sites have beside them."""
    sites = {site.key: site for site in recording.sites}
    listed: dict[int, Counts] = {}
    for thread in recording.threads:
        for key, counts in thread.sites:
            if key in sites:
                listed[key] = listed.get(key, Counts()) + counts
                yield from _parts(
                    recording, sites[key], counts, names.thread_name(thread), thread.tid
                )
    for site in recording.sites:
        rest = _less(site.counts, listed.get(site.key, Counts()))
        yield from _parts(recording, site, rest, "threads that are not listed", 0)


def _less(whole: Counts, part: Counts) -> Counts:
    """Return what a part leaves of the whole, as far as stacks show it."""
    return Counts(
        calls=max(0, whole.calls - part.calls),
        attach_ns=max(0, whole.attach_ns - part.attach_ns),
        wait_ns=max(0, whole.wait_ns - part.wait_ns),
        wait_for_main_ns=max(0, whole.wait_for_main_ns - part.wait_for_main_ns),
        chunks=max(0, whole.chunks - part.chunks),
    )


def _parts(
    recording: Recording, site: Site, counts: Counts, thread: str, tid: int
) -> Iterator[Stack]:
    frames = tuple(names.frame_name(frame) for frame in reversed(site.frames))
    parts = (
        (ATTACHING, cost.of_attaching(recording, counts) - counts.wait_ns),
        (FOR_MAIN, counts.wait_for_main_ns),
        (FOR_OTHERS, counts.wait_for_others_ns),
    )
    for part, ns in parts:
        if ns > 0:
            yield Stack(thread, tid, (*frames, part), ns, counts.calls)
