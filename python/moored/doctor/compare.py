"""Compare: a program as it is and under `moored run`, from recordings made in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from . import cost, names, table, words
from .answer import Look
from .recording import Counts, Recording
from .table import Column

MOST_SITES = 20
"""Rows of sites, those that took most before."""

COLUMNS = (
    Column("before"),
    Column("after"),
    Column("after / before"),
    Column("from"),
    Column("to"),
    Column("what", is_figure=False),
)


@dataclass(frozen=True)
class Row:
    """One measure: medians before and after, and the ratios of the pairs, lowest to highest.

    What was not there on one side has no figure there, and no ratio; nor has what was 0 before.
    """

    what: str
    unit: str
    before: float | None
    after: float | None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


def compare(stock: Sequence[Recording], kept: Sequence[Recording]) -> list[Row]:
    """Return the whole first, then each site by what a call took; the runs are paired in order."""
    rows = [
        _row("wall time", "ns", stock, kept, lambda one: 1e9 * one.seconds),
        _row("CPU time", "ns", stock, kept, lambda one: float(one.cpu_ns)),
        _row("temporary states", "", stock, kept, lambda one: float(one.total.temporary_states)),
        _row("waits for the GIL", "ns", stock, kept, lambda one: float(one.total.wait_ns)),
        _row("longest wait", "ns", stock, kept, lambda one: float(one.total.longest_wait_ns)),
    ]
    by_run = {id(one): _sites(one) for one in (*stock, *kept)}
    # What a site took before ranks it; one that came with the change comes last.
    sums = {name: 0 for recording in kept for name in by_run[id(recording)]}
    for recording in stock:
        for name, (_, ns) in by_run[id(recording)].items():
            sums[name] = sums.get(name, 0) + ns
    for name in sorted(sums, key=lambda one: -sums[one])[:MOST_SITES]:

        def a_call(recording: Recording, name: str = name) -> float | None:
            counts, ns = by_run[id(recording)].get(name, (Counts(), 0))
            return ns / counts.calls if counts.calls else None

        rows.append(_row(f"a call: {name}", "ns", stock, kept, a_call))
    return rows


def _sites(recording: Recording) -> dict[str, tuple[Counts, int]]:
    """Return what each site did and took, by its name: keys differ from run to run."""
    found: dict[str, tuple[Counts, int]] = {}
    for site in recording.sites:
        name = f"{names.site_name(site)} through {names.binding_name(site)}"
        counts, ns = found.get(name, (Counts(), 0))
        its = cost.of_attaching(recording, site.counts)
        found[name] = counts + site.counts, ns + its
    return found


def _row(
    what: str,
    unit: str,
    stock: Sequence[Recording],
    kept: Sequence[Recording],
    measure: Callable[[Recording], float | None],
) -> Row:
    before, after = [measure(one) for one in stock], [measure(one) for one in kept]
    ratios = [
        late / early
        for early, late in zip(before, after, strict=False)
        if early and late is not None
    ]
    return Row(
        what,
        unit,
        _median(before),
        _median(after),
        *((median(ratios), min(ratios), max(ratios)) if ratios else ()),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def show(rows: Sequence[Row], look: Look | None = None) -> str:
    """Return the table."""
    cells = [
        (
            _figure(row.before, row.unit),
            _figure(row.after, row.unit),
            *(_ratio(one) for one in (row.ratio, row.ratio_low, row.ratio_high)),
            row.what,
        )
        for row in rows
    ]
    return "\n".join(table.lines(COLUMNS, cells, look.width if look else None)) + "\n"


def document(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows of a JSON document."""
    return [
        {
            "what": row.what,
            f"before{'_' * bool(row.unit)}{row.unit}": row.before,
            f"after{'_' * bool(row.unit)}{row.unit}": row.after,
            "ratio": row.ratio,
            "ratio_min": row.ratio_low,
            "ratio_max": row.ratio_high,
        }
        for row in rows
    ]


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return words.time(value) if unit == "ns" else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"
