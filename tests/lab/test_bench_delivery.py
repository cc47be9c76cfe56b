"""moored bench delivery: every way delivers or says why not; the verdict follows from the rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.limits import BUILD_S, HANG_S
from support.processes import run_moored

from moored_lab.bench import delivery_verdict
from moored_lab.bench.delivery import BASE, OPEN, SATURATION, WAYS

Row = dict[str, Any]


def _bench(*words: str | Path, limit: float = HANG_S) -> Any:
    return run_moored("bench", "delivery", *words, limit=limit)


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler here")
def test_every_way_delivers_or_says_why_not(tmp_path: Path) -> None:
    cache = Path(__file__).resolve().parents[2] / "build" / "bench"
    path = tmp_path / "delivery.json"
    short = ("--rounds", "1", "--seconds", "0.1", "--cache", cache, "--json", path)
    done = _bench(*short, limit=BUILD_S)
    assert done.code == 0, done.err
    rows: list[Row] = json.loads(path.read_text())["rows"]
    for load, base in ((SATURATION, set()), (OPEN, {BASE})):
        assert {row["key"] for row in rows if row["load"] == load} == base | set(WAYS)
    for row in rows:
        if row["load"] in (SATURATION, OPEN) and "not measured" not in row["note"]:
            assert row["events_per_s"] > 0, row
    own = [row for row in rows if row.get("key", "").startswith(("channel_wake", "channel_enter"))]
    assert all(row["note"] == "" for row in own)
    assert all(row["lost"] == 0 for row in rows if row["way"] == "channel.send")
    assert "batch of 64 against by hand" in done.out


@pytest.mark.parametrize(
    "words",
    [
        ("--ways", "kept,pigeon"),
        ("--ways", ""),
        ("--rounds", "0"),
        ("--seconds", "0"),
        ("--seconds", "nan"),
        ("--python", "no-such-python"),
        ("--json", "/no/such/folder/rows.json"),
    ],
)
def test_a_bad_option_is_one_line(words: tuple[str, ...]) -> None:
    done = _bench(*words)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert done.out == ""


def _send(senders: int, ns: float, lost: int = 0) -> Row:
    named = {"load": "send", "way": "channel.send", "payload": "int", "senders": senders}
    return {**named, "ns_median": ns, "lost": lost}


def _measured(key: str, events_per_s: float) -> Row:
    named = {"load": SATURATION, "key": key, "way": WAYS[key], "senders": 1, "payload": "int"}
    return {**named, "events_per_s": events_per_s}


def _at_rate(key: str, rate: int, above_base_us: float) -> Row:
    named = {**_measured(key, rate), "load": OPEN, "rate_per_s": rate}
    return {**named, "above_base_us": above_base_us, "cpu_ns": 1e3 * (10 + above_base_us)}


def test_the_verdict_judges_what_was_measured() -> None:
    rows = [_send(1, 20), _send(8, 100)]
    rows += [_measured("channel_asyncio", 2e6), _measured("asyncio_kept", 1e5)]
    rows += [_at_rate("channel_asyncio", 5_000, 9.0), _at_rate("channel_event_loop", 5_000, 6.1)]
    rows += [_at_rate("asyncio_ensure", 5_000, 20.0), _at_rate("asyncio_kept", 5_000, 15.0)]
    rows += [_at_rate("channel_enter", 20_000, 2.1), _at_rate("kept", 20_000, 2.0)]
    met = {goal.name: goal.met for goal in delivery_verdict.judge(rows)}
    by_cpu = [True, True, False, False, False]
    assert list(met.values()) == [True, False, True, True, *by_cpu]
    assert "send(), 8 senders against 1, CPU" in met


@pytest.mark.parametrize("theirs", [0.0, -0.5])
def test_what_cannot_be_seen_above_the_base_is_not_judged(theirs: float) -> None:
    rows = [_at_rate("channel_asyncio", 5_000, 2.0), _at_rate("asyncio_kept", 5_000, theirs)]
    assert delivery_verdict.judge(rows) == []


def test_without_rows_there_is_no_verdict() -> None:
    assert delivery_verdict.judge([]) == []
