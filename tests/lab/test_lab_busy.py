"""moored lab busy: a native thread, and a main thread that computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.processes import run_moored

from moored_lab.bench import busy
from moored_lab.report.progress import silent

pytestmark = pytest.mark.lab


def test_it_measures_every_way_and_draws_them(tmp_path: Path) -> None:
    path = tmp_path / "busy.json"
    words = ("--rates=200,2000", "--seconds=0.05", "--rounds=1", f"--json={path}")
    ending = run_moored("lab", "busy", *words, f"--out={tmp_path}")
    assert ending.code == 0, ending.err
    document = json.loads(path.read_text())
    rows = document["rows"]
    assert [row["key"] for row in rows] == 2 * list(busy.WAYS)
    for row in rows:
        if row["note"]:
            assert row["key"] == "interrupt", row
            assert sys.version_info < (3, 13), row
        else:
            assert row["wait_p50_us"] >= 0
            assert row["progress"] > 0
    assert sorted(each.suffix for each in tmp_path.glob("busy-python*")) == [".png", ".svg"]
    assert all(goal["name"] in ending.out for goal in document["goals"])


def test_a_thread_that_is_urgent_comes_although_main_never_lets_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a switch interval of a thousand seconds no other way would come even once."""
    never = busy.Way("urgent", "urgent", switch_interval_s=1000, budget=1.0)
    monkeypatch.setitem(busy.WAYS, busy.URGENT, never)
    interval = sys.getswitchinterval()
    (row,) = busy.run([busy.URGENT], [1000.0], 0.2, 1, silent)
    assert row["visits_per_s"] > 0
    assert sys.getswitchinterval() == interval


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("--ways=quick", "there is no way quick"),
        ("--ways=", "there is no way named"),
        ("--rates=many", "give visits per second"),
        ("--rates=0", "give visits per second"),
        ("--seconds=0", "give 0.02 to 600"),
        ("--rounds=0", "--rounds"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(word: str, reason: str) -> None:
    ending = run_moored("lab", "busy", "--no-chart", word)
    assert (ending.code, ending.out, ending.err.count("\n")) == (2, "", 1)
    assert reason in ending.err


def test_goals_are_judged_by_the_rows() -> None:
    row = {"key": busy.URGENT, "name": "urgent", "rate_per_s": 1_000}
    good = row | {"wait_p50_us": 5.0, "wait_p99_us": 50.0, "progress": 0.97}
    bad = row | {"wait_p50_us": 5_000.0, "wait_p99_us": 6_000.0, "progress": 0.9}
    assert [goal.met for goal in busy.goals([good])] == [True] * 3
    assert [goal.met for goal in busy.goals([bad])] == [False] * 3
    assert busy.goals([row | {"note": "refused"}]) == []
