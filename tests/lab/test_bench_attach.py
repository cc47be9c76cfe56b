"""moored bench attach: every way has a row, goals are judged by the figures."""

import json
import sys

import pytest
from support.processes import Ending, run_moored

from moored_lab import _cost
from moored_lab.bench import attach
from moored_lab.bench.rounds import Samples


def _bench_attach(*words: str) -> Ending:
    return run_moored("bench", "attach", *words)


def test_every_way_has_a_row_with_a_ratio_or_a_reason(tmp_path):
    path = tmp_path / "attach.json"
    done = _bench_attach("--rounds", "3", "--json", str(path))
    assert done.code == 0, done.err
    document = json.loads(path.read_text())
    assert {"moored", "python", "machine", "command", "rows", "goals"} <= set(document)
    rows = {row["key"]: row for row in document["rows"]}
    assert list(rows) == list(attach.NAMES)
    for row in rows.values():
        if "ns_median" in row:
            assert row["ns_median"] >= row["ns_min"] > 0
            assert row["ratio"] > 0
        else:
            assert row["note"].startswith("refused: ")
    assert rows["raw"]["ratio"] == 1
    for key in ("moored_kept", "ensure", "keep_thread_ensure", "moored_nested_alone"):
        assert "ns_median" in rows[key], rows[key]["note"]


def test_strict_exits_4_exactly_when_a_goal_is_missed(tmp_path):
    path = tmp_path / "attach.json"
    done = _bench_attach("--rounds", "3", "--strict", "--json", str(path))
    document = json.loads(path.read_text())
    met = [goal["met"] for goal in document["goals"]]
    assert done.code == (0 if all(met) else 4), done.err
    gates = sum(row["key"].startswith("gate_") and "ns_min" in row for row in document["rows"])
    assert len(met) == 5 + gates + (sys.version_info >= (3, 11))


def _samples(**ns: float) -> dict[str, Samples]:
    return {key: Samples([one], [0.0]) for key, one in ns.items()}


def test_goals_are_judged_by_the_figures():
    good = _samples(
        raw=100.0,
        raw_alone=50.0,
        moored_kept=103.0,
        moored_kept_ordinary=106.0,
        moored_kept_alone=52.0,
        keep_thread_ensure=103.0,
        moored_nested_alone=4.0,
        gate_alone=1.0,
        gate_among_four=1.0,
        ensure=5150.0,
    )
    assert all(goal.met for goal in attach.goals(good))
    bad = _samples(
        raw=100.0,
        raw_alone=50.0,
        moored_kept=103.1,
        moored_kept_ordinary=106.1,
        moored_kept_alone=52.1,
        keep_thread_ensure=103.0,
        moored_nested_alone=4.1,
        gate_alone=1.1,
        gate_among_four=1.1,
        ensure=5000.0,
    )
    assert len(attach.goals(bad)) == 7 + (sys.version_info >= (3, 11))
    assert not any(goal.met for goal in attach.goals(bad))
    assert all(str(goal).startswith("missed: ") for goal in attach.goals(bad))


def test_a_callback_that_raises_is_an_error_and_hangs_nothing(capfd):
    def raises() -> None:
        raise ValueError("on purpose")

    with pytest.raises(RuntimeError, match="callback raised"):
        _cost.entries(raises, -1)
    assert "on purpose" in capfd.readouterr().err
    assert _cost.entries(lambda: None, -1).round()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--rounds", "0"], "--rounds 0"), (["--json", "/no/such/place/a.json"], "/no/such/place")],
)
def test_bad_input_is_one_line_and_exit_2(words, said):
    done = _bench_attach(*words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
