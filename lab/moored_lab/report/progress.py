"""Progress: a bar on stderr while a measurement runs, and only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[float, str], None]
"""Called with the share done (0 to 1) and what is happening now."""


def silent(done: float, doing: str) -> None:
    """Be the progress that is not shown."""


@contextmanager
def bar() -> Iterator[Progress]:
    """Show a bar that goes away at the end; silent without rich or without a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars
    except ImportError:
        yield silent
        return
    shown = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bars(*shown, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=1.0)

        def tell(done: float, doing: str) -> None:
            bars.update(task, completed=done, description=doing)

        yield tell
