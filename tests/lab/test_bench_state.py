"""moored bench state: each way has a row, and a kept state costs memory."""

import json

import pytest
from support.processes import Ending, run_moored

from moored_lab.bench import state


def _bench_state(*words: str) -> Ending:
    return run_moored("bench", "state", *words)


def test_every_way_has_a_row_and_a_kept_state_costs_more_than_a_struct(tmp_path):
    path = tmp_path / "state.json"
    done = _bench_state("--rounds", "1", "--threads", "200", "--json", str(path))
    assert done.code == 0, done.err
    document = json.loads(path.read_text())
    assert {"moored", "python", "machine", "command", "rows", "threads"} <= set(document)
    rows = {row["key"]: row for row in document["rows"]}
    assert list(rows) == [*state.WAYS, "state"]
    assert rows[state.KEPT]["bytes_median"] > rows[state.NONE]["bytes_median"] > 0
    assert rows["state"]["bytes_median"] > 200


def test_the_state_is_the_difference_in_the_same_round():
    rows = state.rows_of({"none": [10.0, 20.0], "temporary": [11.0, 21.0], "kept": [15.0, 27.0]})
    assert rows[-1] == {
        "name": "so, a kept state",
        "key": "state",
        "bytes_median": 6,
        "bytes_p10": 5,
        "bytes_p90": 7,
    }


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--threads", "0"]])
def test_bad_input_is_one_line_and_exit_2(words):
    done = _bench_state(*words)
    assert done.code == 2
    assert " ".join(words) in done.err
    assert len(done.err.splitlines()) == 1
