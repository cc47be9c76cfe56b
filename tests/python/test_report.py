"""The common JSON object, tables, and pictures: what they hold and how they are written."""

from __future__ import annotations

import io
import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from moored.report import chart, wakeup_chart
from moored.report.document import CannotWrite, describe, write_json
from moored.report.table import Column, plain, show


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_document_has_the_common_keys() -> None:
    document = describe("moored lab wakeup", [{"mode": "kept", "process_cpu_percent": 1.5}])
    assert list(document) == ["moored", "python", "machine", "command", "rows"]
    assert document["rows"] == [{"mode": "kept", "process_cpu_percent": 1.5}]
    assert document["machine"]["cpus"] >= 1
    assert describe("x", [], python="3.10.1")["python"] == "3.10.1"


def test_json_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    write_json({"rows": [1, 2]}, path)
    assert json.loads(path.read_text()) == {"rows": [1, 2]}
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]


def test_a_full_disk_is_one_clear_line() -> None:
    with pytest.raises(CannotWrite, match="cannot write /dev/full: No space left on device"):
        write_json({}, Path("/dev/full"))
    assert Path("/dev/full").is_char_device()  # written to, not replaced


def test_json_into_a_pipe_is_written_to_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_json({"rows": []}, pipe)
    assert json.loads(os.read(reading, 1000)) == {"rows": []}
    os.close(reading)


def test_json_keeps_the_old_file_when_the_new_one_cannot_be_made(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_json({"rows": object()}, path)
    assert path.read_text() == "old"


def test_missing_directory_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="there is no directory") as caught:
        write_json({}, tmp_path / "none" / "result.json")
    assert "\n" not in str(caught.value)


def test_table_aligns_words_left_and_numbers_right() -> None:
    text = plain(["mode", "n"], [["kept", "1"], ["temporary", "1,000"]], [False, True], "Title")
    assert text.splitlines() == [
        "Title",
        "",
        "mode           n",
        "---------  -----",
        "kept           1",
        "temporary  1,000",
    ]


@pytest.mark.parametrize(
    ("column", "row", "cell"),
    [
        (Column("a", "a"), {}, "-"),
        (Column("a", "a"), {"a": None}, "-"),
        (Column("a", "a"), {"a": "word"}, "word"),
        (Column("a", "a"), {"a": 1234567}, "1,234,567"),
        (Column("a", "a", 1), {"a": 12.345}, "12.3"),
        (Column("a", "a", 1, signed=True), {"a": 2.0}, "+2.0"),
        (Column("a", "a", 1, signed=True), {"a": -2.0}, "-2.0"),
        (Column("a", "a", 1, spread=True), {"a": 5, "a_min": 4, "a_max": 7}, "5.0 ±1.5"),
        (Column("a", "a", 1, spread=True), {"a": 5, "a_min": 5, "a_max": 5}, "5.0"),
    ],
)
def test_cells(column: Column, row: dict[str, object], cell: str) -> None:
    assert column.cell(row) == cell


def test_table_without_a_terminal_is_plain() -> None:
    stream = io.StringIO()
    show([Column("mode", "mode"), Column("n", "n")], [{"mode": "kept", "n": 3}], stream=stream)
    assert stream.getvalue() == "mode  n\n----  -\nkept  3\n"


def test_table_on_a_terminal_loses_no_cell_however_narrow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = [Column(f"key{at}", f"a long heading {at}") for at in range(8)]
    row = {f"key{at}": f"cell number {at}" for at in range(8)}
    for width in ("40", "400"):
        monkeypatch.setenv("COLUMNS", width)
        stream = Terminal()
        show(columns, [row], stream=stream)
        for at in range(8):
            assert f"cell number {at}" in stream.getvalue()


# Pictures


def document_of(rounds: int = 2, **changes: object) -> dict[str, object]:
    """Return a small result of known numbers: 10 samples of 0.1 s for each mode and round."""
    modes = ("poll15", "temporary", "asyncio-reader")
    samples, switches, at = [], [], 0.0
    for turn in range(1, rounds + 1):
        for place, mode in enumerate(modes):
            switches.append({"at_s": at, "mode": mode, "round": turn})
            for _ in range(10):
                samples.append(
                    {
                        "from_s": at,
                        "to_s": at + 0.1,
                        "mode": mode,
                        "round": turn,
                        "main_cpu_percent": 30.0,
                        "others_cpu_percent": 10.0 * place + (5.0 if turn == 1 else 0.0),
                    }
                )
                at += 0.1
    rows = [
        {
            "mode": mode,
            "rounds": rounds,
            "process_cpu_percent": 30.0 + 10.0 * place,
            "latency_p50_us": 10.0 ** (place + 1),
            "latency_p99_us": 10.0 ** (place + 2),
        }
        for place, mode in enumerate(modes)
    ]
    document: dict[str, object] = {
        "rows": rows,
        "samples": samples,
        "switches": switches,
        "reference": "poll15",
        "setup": ["Python 3.12.1"],
        "handler_us": 10,
    }
    return document | changes


def test_the_shown_round_is_the_one_nearest_to_the_medians() -> None:
    assert wakeup_chart.typical_round(document_of()) == 2


def test_samples_that_are_too_short_are_joined() -> None:
    document = {
        "samples": [
            {"from_s": start, "to_s": end, "mode": "kept", "round": 1,
             "main_cpu_percent": main, "others_cpu_percent": 0.0}
            for start, end, main in [(0.0, 0.1, 20.0), (0.1, 0.101, 500.0), (0.101, 0.2, 20.0)]
        ]
    }  # fmt: skip
    steps = wakeup_chart.steps_of(document, 1)
    assert steps.edges == [0.0, 0.1, 0.2]
    assert steps.main == pytest.approx([20.0, (500.0 + 99 * 20.0) / 100])


def test_no_step_reaches_over_a_switch_and_a_short_rest_joins_the_step_before() -> None:
    document = {
        "samples": [
            {"from_s": start, "to_s": end, "mode": mode, "round": 1,
             "main_cpu_percent": 0.0, "others_cpu_percent": others}
            for start, end, mode, others in [
                (0.0, 0.1, "kept", 20.0), (0.1, 0.2, "kept", 20.0), (0.2, 0.225, "kept", 70.0),
                (0.225, 0.3, "wake", 40.0), (0.3, 0.4, "wake", 50.0),
            ]
        ]
    }  # fmt: skip
    steps = wakeup_chart.steps_of(document, 1)
    assert steps.edges == [0.0, 0.1, 0.225, 0.3, 0.4]
    assert steps.process == pytest.approx([20.0, 30.0, 40.0, 50.0])


def test_names_that_would_overlap_are_moved_apart_and_stay_inside() -> None:
    equal = [0.5 + at for at in range(12)]
    assert wakeup_chart.apart(equal, 12.0) == equal
    moved = wakeup_chart.apart([1.0, 50.0, 50.1, 98.0, 99.0], 100.0)
    gaps = [right - left for left, right in pairwise(moved)]
    assert min(gaps) >= 100 * wakeup_chart.NAME_WIDTH - 1e-9
    assert moved == sorted(moved)
    assert moved[-1] == 99.0


def test_picture_names_every_mode_and_marks_every_switch(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    png, svg = chart.save(wakeup_chart.draw(document_of()), tmp_path / "out", "wakeup")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    for word in ("poll15", "temporary", "asyncio-", "reader", "main", "others", "p99", "median"):
        assert f">{word}</" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [png.name, svg.name]


def test_picture_of_rows_without_numbers_is_still_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    document = document_of(rounds=1)
    for row in document["rows"]:  # type: ignore[attr-defined]
        row |= {"process_cpu_percent": None, "latency_p50_us": None, "latency_p99_us": None}
    png, _ = chart.save(wakeup_chart.draw(document), tmp_path, "wakeup")
    assert png.stat().st_size > 0


def test_earlier_pictures_are_kept_unless_forced(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def names(force: bool) -> list[str]:
        figure = chart.new_figure(1, 1)
        return [path.name for path in chart.save(figure, tmp_path, "wakeup", force)]

    assert names(force=False) == ["wakeup.png", "wakeup.svg"]
    assert names(force=False) == ["wakeup-2.png", "wakeup-2.svg"]
    (tmp_path / "wakeup-2.png").unlink()
    assert names(force=False) == ["wakeup-3.png", "wakeup-3.svg"]
    assert names(force=True) == ["wakeup.png", "wakeup.svg"]


def test_pictures_need_only_their_own_folder_made(tmp_path: Path) -> None:
    chart.prepare_folder(tmp_path / "out")
    assert (tmp_path / "out").is_dir()
    with pytest.raises(CannotWrite, match="there is no directory"):
        chart.prepare_folder(tmp_path / "none" / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot write into"):
        chart.prepare_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("us", "text"), [(0.5, "0.5 us"), (12.34, "12.3 us"), (1500, "1.5 ms"), (2.5e6, "2.5 s")]
)
def test_time_text(us: float, text: str) -> None:
    assert wakeup_chart.time_text(us) == text
