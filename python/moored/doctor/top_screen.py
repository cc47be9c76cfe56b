"""The screen of moored top: a table that is drawn anew each second, sorted as is asked."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widgets import DataTable, Footer, Sparkline, Static
from textual.worker import get_current_worker

from moored.cli.errors import ExitCode

from . import top

SORTED_BY = ("calls", "temporary", "enter", "waited", "held")
HISTORY = 60


class TopScreen(App[int]):
    """Shows a Watch until q, the end of the process, or so many turns."""

    CSS = "#head, #state { height: auto; } Sparkline { height: 2; } DataTable { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "leave", "Quit"),
        ("s", "sort", "Sort by the next column"),
        ("p", "pause", "Pause"),
    ]

    def __init__(self, watch: top.Watch, interval_s: float, turns: int | None = None) -> None:
        super().__init__()
        self._watch, self._interval_s, self._turns = watch, interval_s, turns
        self._view: top.View | None = None
        self._history: deque[float] = deque([0.0] * HISTORY, maxlen=HISTORY)
        self._shown, self._sorted_by = 0, 0
        self._is_paused = False

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static("", id="head", markup=False)
        yield Sparkline(list(self._history), id="history")
        yield Static("", id="state", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Draw the headings, and begin to look."""
        for column in top.COLUMNS:
            self.query_one(DataTable).add_column(column.heading)
        self._say()
        self.run_worker(self._look_on, thread=True)

    def _look_on(self) -> None:
        """Look again and again, on a thread of its own: a reading may look many names up."""
        worker = get_current_worker()
        while not worker.is_cancelled:
            self._watch.wait(self._interval_s)
            view = self._watch.look()
            if worker.is_cancelled:
                return
            self.call_from_thread(self._take, view)
            if view.is_last or self._shown == self._turns:
                return

    def _take(self, view: top.View) -> None:
        self._view = view
        self._shown += 1
        self._history.append(sum(row.temporary for row in view.rows))
        if not self._is_paused:
            self._draw()
        if self._shown == self._turns:
            self.exit(int(ExitCode.FINE))

    def _draw(self) -> None:
        """Show the last view; the cursor stays on its row's place."""
        view = self._view
        if view is None:
            return
        self.query_one("#head", Static).update(view.head)
        self.query_one("#history", Sparkline).data = list(self._history)
        name = SORTED_BY[self._sorted_by]
        table = self.query_one(DataTable)
        at = table.cursor_row
        table.clear()
        for row in sorted(view.rows, key=lambda one: -getattr(one, name)):
            table.add_row(*row.cells())
        table.move_cursor(row=min(at, max(0, len(view.rows) - 1)))
        self._say()

    def _say(self) -> None:
        parts = [f"sorted by {top.COLUMNS[self._sorted_by].heading}"]
        parts += ["paused"] if self._is_paused else []
        if self._view is not None and self._view.is_last:
            parts.append(f"process {self._watch.pid} has ended")
        text = "; ".join(["temporary states a second, above", *parts])
        self.query_one("#state", Static).update(text)

    def action_sort(self) -> None:
        """Sort by the next column of figures."""
        self._sorted_by = (self._sorted_by + 1) % len(SORTED_BY)
        self._draw()
        self._say()

    def action_pause(self) -> None:
        """Leave the table as it is, or let it go on."""
        self._is_paused = not self._is_paused
        if not self._is_paused:
            self._draw()
        self._say()

    def action_leave(self) -> None:
        """End; the process goes on."""
        self.workers.cancel_all()
        self.exit(int(ExitCode.FINE))


def show(watch: top.Watch, interval_s: float, turns: int | None) -> int:
    """Show it until q, Ctrl-C, the end of the process, or so many turns."""
    return TopScreen(watch, interval_s, turns).run() or ExitCode.FINE
