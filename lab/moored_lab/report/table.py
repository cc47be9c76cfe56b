"""Table: rows of a result, with rich on a terminal and as aligned plain text elsewhere.

No cell is ever cut. What is wider than the terminal becomes several tables, one below the other.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from moored_lab.report.document import Row


@dataclass(frozen=True)
class Column:
    """How one value of a row is shown.

    `key` picks the value, `digits` are those behind the point, `signed` always shows the sign.
    With `spread`, half of the distance from `<key>_min` to `<key>_max` follows as a ± value, if
    there is any. A column that `names` its row stands in every part of a table that is too wide.
    """

    key: str
    heading: str
    digits: int = 0
    signed: bool = False
    spread: bool = False
    names: bool = False

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


@dataclass(frozen=True)
class Grid:
    """The texts of a table, column by column."""

    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    numeric: Sequence[bool]

    def part(self, columns: Sequence[int]) -> Grid:
        """Return the table of these columns alone."""
        return Grid(
            [self.headings[at] for at in columns],
            [[row[at] for at in columns] for row in self.cells],
            [self.numeric[at] for at in columns],
        )

    def plain(self) -> str:
        """Return it as aligned text: words to the left, numbers to the right."""
        lines = [self.headings, *self.cells]
        widths = self._widths()

        def aligned(line: Sequence[str]) -> str:
            parts = zip(line, widths, self.numeric, strict=True)
            return "  ".join(
                text.rjust(width) if right else text.ljust(width) for text, width, right in parts
            ).rstrip()

        rule = "  ".join("-" * width for width in widths)
        return "\n".join([aligned(lines[0]), rule, *map(aligned, lines[1:])]) + "\n"

    def plain_width(self) -> int:
        """Return how wide its plain text is."""
        return sum(self._widths()) + 2 * (len(self.headings) - 1)

    def _widths(self) -> list[int]:
        lines = [self.headings, *self.cells]
        return [max(len(line[at]) for line in lines) for at in range(len(self.headings))]


def show(
    columns: Sequence[Column],
    rows: Sequence[Row],
    title: str = "",
    stream: TextIO | None = None,
) -> None:
    """Print the table on `stream` (stdout by default)."""
    stream = stream or sys.stdout
    if stream is None:
        return  # closed before the program began
    grid = Grid(
        [column.heading for column in columns],
        [[_sayable(column.cell(row), stream) for column in columns] for row in rows],
        [_is_numeric(column, rows) for column in columns],
    )
    names = [at for at, column in enumerate(columns) if column.names] or [0]
    if not stream.isatty():
        stream.write((f"{title}\n\n" if title else "") + grid.plain())
    elif not _show_rich(grid, names, title, stream):
        width = shutil.get_terminal_size().columns
        parts = in_parts(grid, names, lambda part: part.plain_width() <= width)
        stream.write((f"{title}\n\n" if title else "") + "\n".join(map(Grid.plain, parts)))


def in_parts(grid: Grid, names: Sequence[int], fits: Callable[[Grid], bool]) -> list[Grid]:
    """Divide a table that is too wide, as few parts as there can be, `names` in each.

    A part that has one other column alone may still not fit; it is the terminal's to wrap.
    """
    parts = [list(names)]
    for at in range(len(grid.headings)):
        if at in names:
            continue
        wider = sorted([*parts[-1], at])
        if len(parts[-1]) > len(names) and not fits(grid.part(wider)):
            parts.append(sorted([*names, at]))
        else:
            parts[-1] = wider
    if len(parts) == 1:
        return [grid]
    shown = [_without_silent_rows(grid, part, names) for part in parts]
    return [part for part in shown if part.cells] or shown[:1]


def _without_silent_rows(grid: Grid, part: Sequence[int], names: Sequence[int]) -> Grid:
    """Leave out, of a part that has nothing but words, the rows that say nothing in it."""
    others = [at for at in part if at not in names]
    if any(grid.numeric[at] for at in others):
        return grid.part(part)
    said = [row for row in grid.cells if any(row[at] not in ("", "-") for at in others)]
    return Grid(grid.headings, said, grid.numeric).part(part)


def _is_numeric(column: Column, rows: Sequence[Row]) -> bool:
    values = [row[column.key] for row in rows if row.get(column.key) is not None]
    return bool(values) and all(isinstance(value, (int, float)) for value in values)


def _sayable(text: str, stream: TextIO) -> str:
    """Write the one sign of ours that is not ASCII otherwise, where it cannot be written."""
    try:
        "±".encode(stream.encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return text.replace("±", "+-")
    return text


def _show_rich(grid: Grid, names: Sequence[int], title: str, stream: TextIO) -> bool:
    """Print with rich; false when it is not installed."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.measure import Measurement
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    console = Console(file=stream, highlight=False)

    def drawn(part: Grid) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading, right in zip(part.headings, part.numeric, strict=True):
            table.add_column(heading, justify="right" if right else "left", no_wrap=True)
        for row in part.cells:
            table.add_row(*map(Text, row))  # as it is: a bracket is no markup
        return table

    def fits(part: Grid) -> bool:
        unlimited = console.options.update(max_width=10_000)
        # Not the minimum: that is what is left when cells are cut.
        return Measurement.get(console, unlimited, drawn(part)).maximum <= console.width

    if title:
        console.print(Text(title, style="table.title"), soft_wrap=True)
    for part in in_parts(grid, names, fits):
        if fits(part):
            console.print(drawn(part))
        else:
            stream.write("\n" + part.plain())
    return True
