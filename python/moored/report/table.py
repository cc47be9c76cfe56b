"""Table: rows of a result, with rich on a terminal and as aligned plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from moored.report.document import Row


@dataclass(frozen=True)
class Column:
    """How one value of a row is shown.

    `key` picks the value, `digits` are those behind the point, `signed` always shows the sign.
    With `spread`, half of the distance from `<key>_min` to `<key>_max` follows as a ± value, if
    there is any.
    """

    key: str
    heading: str
    digits: int = 0
    signed: bool = False
    spread: bool = False

    def cell(self, row: Row) -> str:
        """Return the text of this column in `row`; a value that is not there is a dash."""
        value = row.get(self.key)
        if value is None:
            return "-"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return str(value)
        text = f"{value:{'+' if self.signed else ''},.{self.digits}f}"
        low, high = row.get(f"{self.key}_min"), row.get(f"{self.key}_max")
        if self.spread and low is not None and high is not None and low < high:
            text += f" ±{(high - low) / 2:,.{self.digits}f}"
        return text


def show(
    columns: Sequence[Column],
    rows: Sequence[Row],
    title: str = "",
    stream: TextIO | None = None,
) -> None:
    """Print the table on `stream` (stdout by default)."""
    stream = stream or sys.stdout
    cells = [[column.cell(row) for column in columns] for row in rows]
    numeric = [_is_numeric(column, rows) for column in columns]
    if not (stream.isatty() and _show_rich(columns, cells, numeric, title, stream)):
        stream.write(plain([column.heading for column in columns], cells, numeric, title))


def plain(
    headings: Sequence[str],
    cells: Sequence[Sequence[str]],
    numeric: Sequence[bool],
    title: str = "",
) -> str:
    """Return the table as aligned text: words to the left, numbers to the right."""
    lines = [list(headings), *(list(row) for row in cells)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(headings))]

    def aligned(line: Sequence[str]) -> str:
        parts = zip(line, widths, numeric, strict=True)
        return "  ".join(
            text.rjust(width) if right else text.ljust(width) for text, width, right in parts
        ).rstrip()

    rule = "  ".join("-" * width for width in widths)
    text = [title, ""] if title else []
    text += [aligned(lines[0]), rule, *(aligned(line) for line in lines[1:])]
    return "\n".join(text) + "\n"


def _is_numeric(column: Column, rows: Sequence[Row]) -> bool:
    values = [row[column.key] for row in rows if row.get(column.key) is not None]
    return bool(values) and all(isinstance(value, (int, float)) for value in values)


def _show_rich(
    columns: Sequence[Column],
    cells: Sequence[Sequence[str]],
    numeric: Sequence[bool],
    title: str,
    stream: TextIO,
) -> bool:
    """Print with rich; false when it is not installed or the terminal is too narrow for it."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.measure import Measurement
        from rich.table import Table
    except ImportError:
        return False
    console = Console(file=stream, highlight=False)
    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column, right in zip(columns, numeric, strict=True):
        table.add_column(column.heading, justify="right" if right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    if Measurement.get(console, console.options.update(max_width=10_000), table).minimum > (
        console.width
    ):
        return False
    console.print(table)
    return True
