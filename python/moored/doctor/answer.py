"""Answer: what a terminal shows of a recording."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from . import cost, names, table, words
from .findings import Finding, find_all
from .recording import Recording, Site, Thread
from .table import Column
from .verdict import verdict

MOST_ROWS = 15
"""Of a table; what is left out is said. Every row is in the exports and in the page."""

SITE_COLUMNS = (
    Column("cost"),
    Column("CPU"),
    Column("calls"),
    Column("temporary"),
    Column("a call"),
    Column("waited"),
    Column("longest"),
    Column("through", is_figure=False),
    Column("called from", is_figure=False),
)
THREAD_COLUMNS = (
    Column("calls"),
    Column("temporary"),
    Column("waited"),
    Column("held"),
    Column("longest hold"),
    Column("CPU"),
    Column("kind", is_figure=False),
    Column("thread", is_figure=False),
)


@dataclass(frozen=True)
class Look:
    """How it is written: `width` is None where lines may be of any length."""

    width: int | None = None
    in_colour: bool = False

    def bold(self, text: str) -> str:
        """Mark what is to be read first."""
        return f"\x1b[1m{text}\x1b[0m" if self.in_colour else text

    def remedy(self, text: str) -> str:
        """Mark what is to be pasted."""
        return f"\x1b[36m{text}\x1b[0m" if self.in_colour else text


def look_of(stream: TextIO) -> Look:
    """Return plain text for a pipe; colour on a terminal unless NO_COLOR or a dumb one."""
    if not stream.isatty():
        return Look()
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return Look(shutil.get_terminal_size().columns, not plain)


def answer(recording: Recording, look: Look | None = None) -> str:
    """Return the whole answer."""
    look = look or Look()
    findings = find_all(recording)
    parts = [
        [look.bold(line) for line in table.wrapped(verdict(recording, findings), look.width)],
        table.wrapped(_process(recording), look.width),
        *(_finding(recording, at, one, look) for at, one in enumerate(findings, 1)),
        _sites(recording, look),
        _threads(recording, look),
        table.wrapped(_own_cost(recording), look.width),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _process(recording: Recording) -> str:
    """Say what was recorded."""
    ways = (["kept states"] if recording.kept else []) + (["urgent"] if recording.urgent else [])
    how = f" ({', '.join(ways)})" if ways else ""
    return (
        f"{words.printable(recording.command)}{how}: process {recording.pid}, "
        f"{recording.end} after "
        f"{words.seconds(recording.seconds)}, {words.time(recording.cpu_ns)} of CPU time; "
        f"Python {words.printable(recording.python)}, moored {words.printable(recording.moored)}."
    )


def _finding(recording: Recording, number: int, finding: Finding, look: Look) -> list[str]:
    title = f"{number}. {finding.title}" + (f": {finding.cost}" if finding.cost else "")
    places = names.places(recording, finding.site_keys)
    return [
        *(look.bold(line) for line in table.wrapped(title, look.width)),
        *(table.wrapped(f"At {places}.", look.width, "   ") if places else ()),
        *table.wrapped(finding.why, look.width, "   "),
        f"   -> {look.remedy(words.printable(finding.remedy))}",
    ]


def _sites(recording: Recording, look: Look) -> list[str]:
    ordered = sorted(recording.sites, key=lambda site: -cost.of_attaching(recording, site.counts))
    rows = [_site(recording, site) for site in ordered]
    return _table("Sites, by what they took to enter Python and to leave", SITE_COLUMNS, rows, look)


def _site(recording: Recording, site: Site) -> tuple[str, ...]:
    counts = site.counts
    ns = cost.of_attaching(recording, counts)
    work = max(0, ns - counts.wait_ns)
    return (
        words.time(ns),
        words.percent(recording.share_of_cpu(work)),
        f"{counts.calls:,}",
        f"{counts.temporary_states:,}",
        words.time(work / max(1, counts.calls)),
        words.time(counts.wait_ns),
        words.time(counts.longest_wait_ns),
        names.binding_name(site),
        names.short_site_name(site),
    )


def _threads(recording: Recording, look: Look) -> list[str]:
    ordered = sorted(
        recording.threads,
        key=lambda one: (-cost.of_attaching(recording, one.counts), -one.cpu_ns),
    )
    rows = [_thread(thread) for thread in ordered]
    return _table("Threads", THREAD_COLUMNS, rows, look)


def _thread(thread: Thread) -> tuple[str, ...]:
    counts = thread.counts
    return (
        f"{counts.calls:,}",
        f"{counts.temporary_states:,}",
        words.time(counts.wait_ns),
        words.time(counts.hold_ns),
        words.time(counts.longest_hold_ns),
        words.time(thread.cpu_ns),
        names.thread_kind(thread),
        names.thread_name(thread),
    )


def _table(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], look: Look
) -> list[str]:
    if not rows:
        return []
    shown = table.lines(columns, rows[:MOST_ROWS], look.width)
    left = len(rows) - MOST_ROWS
    more = [f"and {left:,} more: -f html or -f json shows them"] if left > 0 else []
    return [look.bold(title), *shown, *more]


def _own_cost(recording: Recording) -> str:
    """Say what the recording cost, and what it missed."""
    own = recording.recording_ns
    share = words.percent(recording.share_of_cpu(own))
    text = (
        f"Recording took {words.time(own)}, {share} of the CPU: "
        f"{words.count(recording.total.calls, 'call')} at {recording.per_call_cost_ns:.0f} ns each."
    )
    if recording.records_lost:
        text += f" {words.count(recording.records_lost, 'record')} did not fit and are not counted."
    return text
