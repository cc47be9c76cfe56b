"""The common JSON object, tables, and pictures: what they hold and how they are written."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from moored_lab.report import chart, progress, wakeup_chart
from moored_lab.report.document import describe, write_json
from moored_lab.report.place import CannotWrite, check_writable
from moored_lab.report.table import Column, Grid, in_parts, show


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


def test_a_link_stays_a_link_and_its_file_is_written_whole(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    real = tmp_path / "data" / "real.json"
    link = tmp_path / "link.json"
    link.symlink_to("data/real.json")
    for number in (1, 2):  # at first it leads nowhere
        write_json({"rows": [number]}, link)
        assert link.is_symlink()
        assert json.loads(real.read_text()) == {"rows": [number]}
    assert [each.name for each in real.parent.iterdir()] == ["real.json"]


def test_a_file_with_two_names_keeps_both(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text("what was there before, and longer than what comes")
    second.hardlink_to(first)
    write_json({"rows": []}, second)
    assert json.loads(first.read_text()) == {"rows": []}


def test_links_that_lead_nowhere_are_one_clear_line(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(CannotWrite, match="it is a link that leads to itself"):
        write_json({}, circle)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "none" / "result.json")
    with pytest.raises(CannotWrite, match=f"there is no directory {tmp_path}/none; make it first"):
        write_json({}, link)
    assert circle.is_symlink()
    assert link.is_symlink()


def own_links(folder: Path, number: int) -> list[Path]:
    """Return every way in which a command line may name a descriptor of the process itself."""
    near, far = folder / f"near{number}", folder / f"far{number}"
    near.symlink_to(f"/proc/self/fd/{number}")
    far.symlink_to(near.name)
    return [near, far, Path(f"/dev/fd/{number}"), Path(f"/proc/thread-self/fd/{number}")]


def test_a_descriptor_is_written_to_where_it_stands(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        file.write("a line before\n")
        file.flush()
        for path in own_links(tmp_path, file.fileno()):
            check_writable(path)
            write_json({"rows": []}, path)
    assert log.read_text() == "a line before\n" + 4 * '{\n  "rows": []\n}\n'


def test_a_descriptor_that_cannot_be_written_to_is_said_before(tmp_path: Path) -> None:
    reading = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(CannotWrite, match="it is open for reading"):
        check_writable(Path(f"/dev/fd/{reading}"))
    os.close(reading)
    with pytest.raises(CannotWrite, match="Bad file descriptor"):
        check_writable(Path(f"/proc/self/fd/{reading}"))


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
    grid = Grid(["mode", "n"], [["kept", "1"], ["temporary", "1,000"]], [False, True])
    assert grid.plain().splitlines() == [
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


def test_table_without_a_terminal_is_plain_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "5")
    stream = io.StringIO()
    columns = [Column("mode", "mode"), Column("n", "n")]
    show(columns, [{"mode": "kept", "n": 3}], "Title", stream=stream)
    assert stream.getvalue() == "Title\n\nmode  n\n----  -\nkept  3\n"


@pytest.fixture(params=["with rich", "without rich"])
def with_or_without_rich(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "with rich":
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)


@pytest.mark.usefixtures("with_or_without_rich")
@pytest.mark.parametrize("width", [20, 40, 79, 80, 90, 100, 110, 120, 160, 400])
def test_table_on_a_terminal_loses_no_figure_however_narrow(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    columns = [
        Column("what", "what", names=True),
        Column("way", "way", names=True),
        *(Column(f"key{at}", f"heading {at}", 1, spread=at % 3 == 0) for at in range(12)),
        Column("note", "note"),
    ]
    rows = [
        {
            **{f"key{at}": 1_234_567.8 * (row + at + 1) for at in range(12)},
            **{f"key{at}_min": 1.0 for at in range(12)},
            **{f"key{at}_max": 1_000_001.0 for at in range(12)},
            "what": f"thing number {row}",
            "way": "install()",
            "note": "[Errno 28] a sentence that says why, and is longer than most terminals are",
        }
        for row in range(3)
    ]
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "40")
    stream = Terminal()
    show(columns, rows, "A title with its figures: 20 rounds, 1,000 threads", stream=stream)
    said = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue())
    for column in columns:
        assert column.heading in said
        for row in rows:
            assert column.cell(row) in said
    assert "20 rounds, 1,000 threads" in said
    assert "…" not in said
    figures = [line for line in said.splitlines() if "Errno" not in line and "---" not in line]
    # With two names and one figure a line may be too long for a terminal, never with more.
    assert all(len(line) <= width or width < 60 for line in figures)


def test_a_table_in_parts_repeats_what_names_its_rows() -> None:
    grid = Grid(["what", "a", "way", "b", "c"], [["x", "1", "y", "2", "3"]], [False] * 5)
    parts = in_parts(grid, [0, 2], lambda part: len(part.headings) <= 3)
    assert [part.headings for part in parts] == [
        ["what", "a", "way"],
        ["what", "way", "b"],
        ["what", "way", "c"],
    ]
    assert [part.cells for part in parts] == [
        [["x", "1", "y"]],
        [["x", "y", "2"]],
        [["x", "y", "3"]],
    ]
    assert len(in_parts(grid, [0, 2], lambda part: True)) == 1


def test_notes_below_a_table_are_those_that_there_are() -> None:
    cells = [["x", "1", ""], ["y", "2", "why"]]
    grid = Grid(["what", "ns", "note"], cells, [False, True, False])
    parts = in_parts(grid, [0], lambda part: False)
    assert [part.cells for part in parts] == [[["x", "1"], ["y", "2"]], [["y", "why"]]]
    silent = Grid(["what", "ns", "note"], [["x", "1", ""]], [False, True, False])
    assert len(in_parts(silent, [0], lambda part: False)) == 1


def test_a_stream_that_knows_only_ascii_gets_the_spread_all_the_same() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    row = {"mode": "kept", "cpu": 5, "cpu_min": 4, "cpu_max": 7}
    show([Column("mode", "mode"), Column("cpu", "cpu", 1, spread=True)], [row], stream=stream)
    stream.flush()
    assert b"5.0 +-1.5" in raw.getvalue()


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


def test_the_folder_of_the_pictures_is_made(tmp_path: Path) -> None:
    chart.prepare_folder(tmp_path / "some" / "out")
    assert (tmp_path / "some" / "out").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot write into"):
        chart.prepare_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("us", "text"), [(0.5, "0.5 us"), (12.34, "12.3 us"), (1500, "1.5 ms"), (2.5e6, "2.5 s")]
)
def test_time_text(us: float, text: str) -> None:
    assert wakeup_chart.time_text(us) == text


def test_a_long_run_without_a_terminal_says_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    tell = progress.lines(lambda: now)
    tell(0.0, "begins")
    for second in range(1, 31):
        now = float(second)
        tell(second / 40, f"second {second}")
    assert capsys.readouterr().err == (
        "moored: 25 %: second 10\nmoored: 50 %: second 20\nmoored: 75 %: second 30\n"
    )
