"""moored lab cost: all rows are there, the shares are shares, bad input is one line."""

import json
import os
import platform
import sys

import pytest
from support.processes import Ending, run_moored

from moored_lab.bench import cost
from moored_lab.bench.rounds import Samples


@pytest.fixture(scope="module")
def measured():
    return cost.run(rounds=3)


def _lab_cost(*words: str, **variables: str) -> Ending:
    return run_moored("lab", "cost", *words, env={**os.environ, **variables})


def test_every_operation_has_a_row_with_positive_figures(measured):
    rows = {row["key"]: row for row in measured.rows() if "share" not in row}
    assert list(rows) == [operation.key for operation in cost.MEASURED]
    for row in rows.values():
        assert 0 < row["ns_min"] <= row["ns_median"]
        assert row["ns_p10"] <= row["ns_median"] <= row["ns_p90"]


def test_the_shares_are_shares(measured):
    slices = measured.slices()
    shares = [piece.share for piece in slices if piece.share is not None]
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) == pytest.approx(1)
    assert [piece.part for piece in slices] == list(cost.PARTS)


def test_a_part_that_this_cpython_lacks_has_no_share_and_says_why(measured):
    rows = {row["key"]: row for row in measured.rows() if "share" in row}
    for part in cost.PARTS:
        row = rows[f"share_{part.key}"]
        assert (row["share"] is not None) == part.is_here
        assert bool(row["note"]) == (not part.is_here)


def test_the_chunk_is_there_from_311_on(measured):
    """A page fault for every temporary state with a frame is the chunk's first touch."""
    faults = {key: samples.as_row()["page_faults"] for key, samples in measured.samples.items()}
    assert (faults["temporary"] > 0.9) == (sys.version_info >= (3, 11))
    assert faults["temporary_no_call"] < 0.1
    assert faults["kept"] < 0.1


def _result(**ns: float) -> cost.Result:
    samples = {operation.key: Samples([10.0], [0.0]) for operation in cost.MEASURED}
    return cost.Result(samples | {key: Samples([one], [0.0]) for key, one in ns.items()}, 300)


def test_parts_that_add_up_to_more_than_the_whole_are_still_shares():
    slices = _result(temporary=100.0, gil=90.0, tls_python=90.0).slices()
    assert sum(piece.share for piece in slices if piece.share is not None) == pytest.approx(1)


@pytest.mark.parametrize(
    ("ns", "said"),
    [
        ({"temporary": 1000.0, "tls_python": 900.0}, "So it is TLS"),
        ({"temporary": 1000.0, "gil": 900.0}, "So it is the GIL"),
        ({"temporary": 1000.0, "call": 900.0}, "So it is none of these three but the Python call"),
        ({"temporary": 70.0}, "No part stands out"),
    ],
)
def test_the_verdict_follows_the_figures(ns, said):
    assert said in _result(**ns).verdict()


def test_the_command_prints_the_tables_and_writes_the_json(tmp_path):
    path = tmp_path / "cost.json"
    done = _lab_cost("--rounds", "2", "--json", str(path), "--no-chart")
    assert done.code == 0, done.err
    assert "data-stack chunk" in done.out
    document = json.loads(path.read_text())
    assert {"moored", "python", "machine", "command", "rows"} <= set(document)
    assert len(document["rows"]) == len(cost.MEASURED) + len(cost.PARTS)


def test_the_chart_is_drawn_twice(tmp_path):
    pytest.importorskip("matplotlib")
    done = _lab_cost("--rounds", "2", "--out", str(tmp_path / "charts"))
    assert done.code == 0, done.err
    stem = f"cost-python{platform.python_version()}"
    assert {path.name for path in (tmp_path / "charts").iterdir()} == {f"{stem}.png", f"{stem}.svg"}


def test_a_folder_that_cannot_be_is_refused_before_anything_runs():
    pytest.importorskip("matplotlib")
    done = _lab_cost("--out", "/dev/null/charts")
    assert done.code == 2
    assert "/dev/null/charts" in done.err


def test_without_matplotlib_there_is_one_line_and_exit_3(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = _lab_cost("--out", str(tmp_path), PYTHONPATH=path)
    assert done.code == 3
    assert "pip install matplotlib" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "--rounds 0"),
        (["--json", "/no/such/place/cost.json", "--no-chart"], "/no/such/place"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, said):
    done = _lab_cost(*words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
