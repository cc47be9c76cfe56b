"""The comparison: whole and sites before and after, as ratios with their spread."""

from __future__ import annotations

from dataclasses import replace

import pytest
from doctor_recordings import CHURN, churning, healthy, site, with_counts

from moored.doctor import compare
from moored.doctor.answer import Look
from moored.doctor.compare import Row
from moored.doctor.recording import Counts, Frame, Recording

KEPT = Counts(calls=43_120, attach_ns=12_000_000, wait_ns=10_000_000)


def runs() -> tuple[list[Recording], list[Recording]]:
    """Three runs as it is, and three that keep states; the second pair runs slower."""
    stock = [churning(cpu_ns=ns * 10**9) for ns in (10, 12, 10)]
    kept = [with_counts(KEPT, kept=True, cpu_ns=ns * 10**9) for ns in (9, 9, 8)]
    return stock, kept


def the(rows: list[Row], what: str) -> Row:
    return next(row for row in rows if row.what.startswith(what))


def test_ratios_are_those_of_the_pairs() -> None:
    cpu = the(compare.compare(*runs()), "CPU time")
    assert (cpu.before, cpu.after) == (10e9, 9e9)
    assert (cpu.ratio, cpu.ratio_low, cpu.ratio_high) == (0.8, 0.75, 0.9)


def test_each_site_is_compared_by_what_a_call_takes() -> None:
    row = the(compare.compare(*runs()), "a call")
    assert row.what == "a call: libgstbase!gst_base_src_loop through _ctypes"
    assert row.before == pytest.approx(620e6 / 43_120)
    assert row.ratio == pytest.approx(12 / 620)


def test_sites_are_matched_by_name_and_not_by_key() -> None:
    stock, kept = runs()
    renumbered = [replace(one, sites=(replace(one.sites[0], key=99),)) for one in kept]
    rows = compare.compare(stock, renumbered)
    assert [row.what for row in rows].count(the(rows, "a call").what) == 1
    assert the(rows, "a call").ratio is not None


def test_what_is_on_one_side_alone_has_no_ratio() -> None:
    stock, kept = runs()
    other = site(5, CHURN, frames=(Frame("libnew.so", "f"),))
    rows = compare.compare(stock, [replace(one, sites=(other,)) for one in kept])
    gone, new = the(rows, "a call: libgstbase"), the(rows, "a call: libnew")
    assert (gone.after, gone.ratio) == (None, None)
    assert (new.before, new.ratio) == (None, None)
    assert "-" in compare.show(rows)


def test_nothing_before_has_no_ratio() -> None:
    rows = compare.compare([healthy()], [healthy()])
    states = the(rows, "temporary states")
    assert (states.before, states.after, states.ratio) == (0, 0, None)
    assert compare.compare([], []) != []


def test_the_table_shows_every_figure_at_any_width() -> None:
    rows = compare.compare(*runs())
    shown = compare.show(rows)
    assert "0.80   0.75   0.90  CPU time" in shown
    assert "14.4 us" in shown
    for width in (20, 40, 80):
        narrow = compare.show(rows, Look(width))
        assert all(figure in narrow for figure in ("14.4 us", "0.019", "0.80", "0.75", "0.90"))


def test_the_document_has_units_in_its_keys() -> None:
    rows = compare.document(compare.compare(*runs()))
    assert rows[1] == {
        "what": "CPU time",
        "before_ns": 10e9,
        "after_ns": 9e9,
        "ratio": 0.8,
        "ratio_min": 0.75,
        "ratio_max": 0.9,
    }
    assert rows[2]["before"] == 43_120
