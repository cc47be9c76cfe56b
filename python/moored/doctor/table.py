"""Table: aligned text of which no figure is ever cut, whatever the width."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

GAP = "  "
INDENT = "    "
HELD = "\0"
"""A blank at which no line is broken."""


@dataclass(frozen=True)
class Column:
    """A heading, and to which side its cells go: figures to the right."""

    heading: str
    is_figure: bool = True


def lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return the table's lines.

    The last column names the row. Where the table is wider than `width`, it goes below its row;
    where it is wider even so, each row becomes a paragraph.
    """
    widths = [
        max([len(column.heading), *(len(row[at]) for row in rows)])
        for at, column in enumerate(columns)
    ]
    headings = [column.heading for column in columns]
    if width is None or _whole(widths) <= width:
        return [_aligned(columns, widths, row) for row in [headings, *rows]]
    if _whole(widths[:-1]) <= width:
        made = [_aligned(columns[:-1], widths[:-1], row[:-1]) for row in [headings, *rows]]
        named = zip(made[1:], (INDENT + row[-1] for row in rows), strict=True)
        return [made[0], *(line for both in named for line in both)]
    return [line for row in rows for line in _paragraph(columns, row, width)]


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _aligned(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> str:
    cells = zip(columns, widths, row, strict=True)
    return GAP.join(
        text.rjust(wide) if column.is_figure else text.ljust(wide) for column, wide, text in cells
    ).rstrip()


def _paragraph(columns: Sequence[Column], row: Sequence[str], width: int) -> list[str]:
    """Return a row as its name and, below it, what the columns say; only blanks are broken at."""
    said = [f"{column.heading} {text}" for column, text in zip(columns, row, strict=True)][:-1]
    # A heading and its figure stay together: no break at the blanks within.
    joined = ", ".join(one.replace(" ", HELD) for one in said)
    return [row[-1], *wrapped(joined, width, INDENT)]


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """Break a text at blanks, never between a figure and its unit; what is too long stays whole."""
    if width is None:
        return [indent + text]
    broken = textwrap.wrap(
        re.sub(r"(?<=\d) (?=(?:ns|us|ms|s|%)(?!\w))", HELD, text),
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(HELD, " ") for line in broken]
