"""Progress: what a measurement is doing, as a bar on a terminal, else as a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[float, str], None]
"""Called with the share done (0 to 1) and what is happening now."""

LINE_S = 10.0
"""Between two lines where there is no terminal."""


def silent(done: float, doing: str) -> None:
    """Be the progress that is not shown."""


@contextmanager
def bar() -> Iterator[Progress]:
    """Show a bar that goes away at the end; without a terminal or without rich, lines."""
    if not sys.stderr.isatty():
        yield lines(time.monotonic)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars
    except ImportError:
        yield lines(time.monotonic)
        return
    shown = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bars(*shown, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=1.0)

        def tell(done: float, doing: str) -> None:
            bars.update(task, completed=done, description=doing)

        yield tell


def lines(clock: Callable[[], float]) -> Progress:
    """Say on stderr what is done, at most every LINE_S seconds; nothing in a short run."""
    said = clock()

    def tell(done: float, doing: str) -> None:
        nonlocal said
        if clock() - said < LINE_S:
            return
        said = clock()
        print(f"moored: {100 * done:.0f} %: {doing}", file=sys.stderr, flush=True)

    return tell
