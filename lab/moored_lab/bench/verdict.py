"""Verdict: what moored promises about callbacks, judged by the rows of one interpreter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moored_lab.bench import programs
from moored_lab.bench.goals import Goal
from moored_lab.bench.interpreter import Interpreter
from moored_lab.bench.turns import (
    ASKS,
    BY_HAND,
    CHURN,
    EMPTY,
    INSTALL,
    KEEP_THREAD,
    LOGS,
    RUN,
    STOCK,
    WAYS,
    Row,
)

KEEPING = (KEEP_THREAD, RUN)
KIB = "KiB"


def judge(interpreter: Interpreter, rows: Sequence[Row]) -> list[Goal]:
    """Judge all that was measured; the worst binding stands for all."""
    found: list[Goal] = []
    keeps_already = {
        row["binding"]
        for row in _of(rows, STOCK, EMPTY)
        if row["locals_survive"] or "times_faster" not in row
    }
    slow = [row for row in rows if row.get("binding") not in keeps_already]
    if interpreter.minor >= 11:
        limit = 8 if interpreter.minor <= 13 else 6
        found += _least("install(), empty callback", _of(slow, INSTALL, EMPTY), limit)
        for way in KEEPING:
            ctypes = [row for row in _of(slow, way, EMPTY) if row["binding"] == "ctypes"]
            found += _least(f"{WAYS[way]}, empty callback", ctypes, 40)
    if interpreter.minor >= 13:
        for way in KEEPING:
            # What a log record asks of the thread. The record itself is Python's own work, which no
            # way in can make faster: it is judged against the state kept by hand.
            found += _least(f"{WAYS[way]}, current_thread()", _of(slow, way, ASKS), 20)
    for way in KEEPING:
        for callback, name in ((EMPTY, "empty"), (LOGS, "logging")):
            own = [row for row in _of(rows, way, callback) if "of_by_hand" in row]
            named = f"{WAYS[way]}, {name} callback, against {WAYS[BY_HAND]}"
            found += _most(named, own, "of_by_hand", 1.5, "x")
    for way in (INSTALL, *KEEPING):
        churned = _of(rows, way, CHURN)
        threads = f"{churned[0]['threads']:,} threads of one callback" if churned else ""
        grown = f"{WAYS[way]}, {threads}: growth of resident memory"
        found += _most(grown, churned, "resident_growth_kib", 1024, KIB)
        found += _most(f"{WAYS[way]}, {threads}", churned, "states_left", 0, "states left")
    for row in rows:
        if row.get("way") != WAYS[RUN] or "ratio" not in row:
            continue
        if row["program"] == programs.STARTUP:
            found.append(Goal(f"{WAYS[RUN]}, start-up: more", row["ms_more"], 15, unit="ms"))
        if row["program"] == programs.PLAIN:
            found.append(Goal(f"{WAYS[RUN]}, no foreign thread", row["ratio"], 1.02))
    return found


def _of(rows: Iterable[Row], way: str, callback: str) -> list[Row]:
    """Pick the measured rows of a way and a callback, one for each binding."""
    return [
        row
        for row in rows
        if row.get("way") == WAYS[way]
        and row.get("callback") == callback
        and (row["threads"] == 1 or callback == CHURN)
    ]


def _least(name: str, rows: Sequence[Row], limit: float) -> list[Goal]:
    """Promise that each is so many times faster than stock; none when none was measured."""
    measured = [row for row in rows if "times_faster" in row]
    if not measured:
        return []
    worst = min(measured, key=lambda row: float(row["times_faster"]))
    named = f"{name}, {_whose(worst, measured)}"
    return [Goal(named, worst["times_faster"], limit, at_least=True)]


def _most(name: str, rows: Sequence[Row], key: str, limit: float, unit: str) -> list[Goal]:
    """Promise that none is above the limit; none when none was measured."""
    if not rows:
        return []
    worst = max(rows, key=lambda row: float(row[key]))
    return [Goal(f"{name}, {_whose(worst, rows)}", worst[key], limit, unit=unit)]


def _whose(worst: Row, among: Sequence[Row]) -> str:
    return worst["binding"] if len(among) == 1 else f"worst of {len(among)} ({worst['binding']})"
