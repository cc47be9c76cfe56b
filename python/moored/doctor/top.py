"""Top: what native threads pay in a process that is being recorded, second by second.

It reads the process's capture, which is mapped and shared: the process is not stopped for it.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moored.cli.errors import ExitCode

from . import capture, names, table, words
from .attaching import Attached
from .recording import Counts, Recording, Site
from .symbols import Symbols
from .table import Column

CLEAR = "\x1b[H\x1b[J"
MOST_ROWS = 15

COLUMNS = (
    Column("calls/s"),
    Column("temporary/s"),
    Column("enter, ms/s"),
    Column("waited, ms/s"),
    Column("held, ms/s"),
    Column("longest wait"),
    Column("through", is_figure=False),
    Column("called from", is_figure=False),
)


@dataclass(frozen=True)
class Row:
    """A site, and what happened there a second; times in ms."""

    site: Site
    calls: float
    temporary: float
    enter: float
    waited: float
    held: float

    def cells(self) -> tuple[str, ...]:
        """Return what stands in the columns."""
        return (
            f"{self.calls:,.0f}",
            f"{self.temporary:,.0f}",
            *(f"{value:,.1f}" for value in (self.enter, self.waited, self.held)),
            words.time(self.site.counts.longest_wait_ns),
            names.binding_name(self.site),
            names.short_site_name(self.site),
        )


@dataclass(frozen=True)
class View:
    """What happened between two readings."""

    now: Recording
    rows: tuple[Row, ...]
    is_last: bool

    @property
    def head(self) -> str:
        """Say what is looked at, and what it came to so far."""
        now = self.now
        return (
            f"{words.printable(now.command)}: process {now.pid}, "
            f"Python {words.printable(now.python)}, "
            f"{words.count(now.total.calls, 'call')} and "
            f"{words.count(now.total.temporary_states, 'temporary state')} so far"
        )


class Watch:
    """A process's capture, read again and again. `attached`: the recording is this command's."""

    def __init__(self, pid: int, path: Path, attached: Attached | None = None) -> None:
        self.pid = pid
        self._path, self._attached = path, attached
        self._symbols = Symbols()
        self._before = capture.read(path, self._symbols)
        self._at = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let the time pass; what this command records is sampled meanwhile."""
        if self._attached is not None:
            self._attached.watch(seconds)
        else:
            time.sleep(seconds)

    def look(self) -> View:
        """Return what happened since the last look."""
        before, now, at = self._before, capture.read(self._path, self._symbols), time.monotonic()
        is_last = not Path(f"/proc/{self.pid}").exists() or now.end != "running"
        view = View(now, rows(before, now, max(at - self._at, 1e-6)), is_last)
        self._before, self._at = now, at
        return view


def rows(before: Recording, now: Recording, seconds: float) -> tuple[Row, ...]:
    """Return what happened between two readings, the most calls first."""
    earlier: Mapping[int, Counts] = {site.key: site.counts for site in before.sites}
    made = []
    for site in now.sites:
        was, counts = earlier.get(site.key, Counts()), site.counts
        if counts.calls <= was.calls:
            continue
        times = (
            max(0, after - earlier_ns) / 1e6 / seconds
            for after, earlier_ns in (
                (counts.work_ns, was.work_ns),
                (counts.wait_ns, was.wait_ns),
                (counts.hold_ns, was.hold_ns),
            )
        )
        states = counts.temporary_states - was.temporary_states
        made.append(Row(site, (counts.calls - was.calls) / seconds, states / seconds, *times))
    return tuple(sorted(made, key=lambda row: -row.calls))


def show(watch: Watch, interval_s: float, turns: int | None) -> int:
    """Print it until the process ends, Ctrl-C, or so many turns are over."""
    shown = 0
    while turns is None or shown < turns:
        watch.wait(interval_s)
        view = watch.look()
        print((CLEAR if sys.stdout.isatty() else "") + text_of(view), flush=True)
        shown += 1
        if view.is_last:
            print(f"process {watch.pid} has ended")
            break
    return ExitCode.FINE


def text_of(view: View) -> str:
    """Return it as plain text."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    cells = [row.cells() for row in view.rows[:MOST_ROWS]]
    shown = table.lines(COLUMNS, cells, width) if cells else []
    nothing = ["no native thread has entered Python meanwhile"]
    return "\n".join([view.head, "", *(shown or nothing)]) + "\n"
