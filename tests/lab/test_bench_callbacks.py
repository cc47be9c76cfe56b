"""moored bench callbacks: every binding is built and calls back, in every way, or says why not."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from support.limits import HANG_S
from support.processes import run_moored, succeed

from moored_lab.bench import callbacks, verdict
from moored_lab.bench.bindings import BINDINGS, Binding
from moored_lab.bench.interpreter import Interpreter, look_at
from moored_lab.bench.programs import AGAIN, PLAIN, STARTUP
from moored_lab.bench.turns import ASKS, BY_HAND, CHURN, EMPTY, LOGS, MANY, STOCK, WAYS, Plan
from moored_lab.bench.workshop import SOURCES, CannotBuild, Workshop

NAMES = {one.key: one.name for one in BINDINGS}
KEEPING = ["keep_thread", "run", BY_HAND]
Row = dict[str, Any]
# The run with all bindings, which it builds: an hour, when the machine is busy.
WHOLE_S = 3600

needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here")


def _bench(*words: str | Path, limit: float = HANG_S, **variables: str) -> Any:
    return run_moored("bench", "callbacks", *words, env=os.environ | variables, limit=limit)


@pytest.fixture(scope="module")
def cache() -> Path:
    """Where the extensions stay between runs of the tests: with all else that is built."""
    return Path(__file__).resolve().parents[2] / "build" / "bench"


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """One short run with all bindings: what was printed, and the document."""
    path = tmp_path_factory.mktemp("whole") / "callbacks.json"
    done = _bench("--rounds", "1", "--cache", cache, "--json", path, limit=WHOLE_S)
    assert done.code == 0, done.err
    return done, json.loads(path.read_text())


def _rows(document: dict[str, Any], binding: str) -> dict[tuple[str, str, int], Row]:
    """Find the rows of one binding; without any, the reason is that of the skip."""
    rows = [row for row in document["rows"] if row.get("binding") == NAMES[binding]]
    if [row["way"] for row in rows] == ["all"]:
        pytest.skip(rows[0]["note"])
    assert [row["note"] for row in rows if "callback" not in row] == []
    return {(row["way"], row["callback"], row["threads"]): row for row in rows}


@needs_compiler
@pytest.mark.timeout(WHOLE_S + 100)
def test_the_document_has_every_binding_and_the_verdict(whole):
    done, document = whole
    assert {"moored", "python", "machine", "command", "rows", "goals"} <= set(document)
    bindings = [row["binding"] for row in document["rows"] if "binding" in row]
    assert list(dict.fromkeys(bindings)) == list(NAMES.values())
    for name in NAMES.values():
        assert name in done.out
    for goal in document["goals"]:
        met = "met" if goal["met"] else "missed"
        assert f"{met}: {goal['name']}" in done.out
    assert len(document["goals"]) >= 12


@needs_compiler
@pytest.mark.timeout(WHOLE_S + 100)
@pytest.mark.parametrize("binding", NAMES)
def test_each_way_is_measured_or_says_why_not(whole, binding):
    rows = _rows(whole[1], binding)
    turns = [(EMPTY, 1), (ASKS, 1), (LOGS, 1), (EMPTY, MANY), (CHURN, Plan.churn_threads)]
    assert list(rows) == [(name, *turn) for name in WAYS.values() for turn in turns]
    for row in rows.values():
        assert row["ns_median"] >= row["ns_min"] > 0
        assert row["times_faster"] > 0
        assert row["of_by_hand"] > 0
    for turn in turns:
        assert rows[(WAYS[STOCK], *turn)]["times_faster"] == 1
        assert rows[(WAYS[BY_HAND], *turn)]["of_by_hand"] == 1


@needs_compiler
@pytest.mark.timeout(WHOLE_S + 100)
@pytest.mark.parametrize("binding", NAMES)
def test_thread_locals_survive_where_the_state_is_kept(whole, binding):
    rows = _rows(whole[1], binding)
    survives = {way: rows[name, EMPTY, 1]["locals_survive"] for way, name in WAYS.items()}
    keeps_by_itself = binding == "cffi"
    assert survives[STOCK] == survives["install"] == keeps_by_itself
    for way in KEEPING:
        # From 3.15 on nanobind frees what it made itself, whatever else counts on it.
        if (binding, way) == ("nanobind", "keep_thread") and sys.version_info >= (3, 15):
            assert survives[way] or rows[WAYS[way], EMPTY, 1]["note"] == "the state was not kept"
        else:
            assert survives[way], way


@needs_compiler
@pytest.mark.timeout(WHOLE_S + 100)
@pytest.mark.parametrize("binding", NAMES)
def test_threads_of_one_callback_leave_nothing(whole, binding):
    rows = _rows(whole[1], binding)
    churned = [row for (_, callback, _), row in rows.items() if callback == CHURN]
    assert [row["states_left"] for row in churned] == [0] * len(WAYS)


@needs_compiler
@pytest.mark.timeout(WHOLE_S + 100)
def test_programs_without_callbacks_are_compared_with_stock(whole):
    programs = [row for row in whole[1]["rows"] if "program" in row]
    ways = [WAYS[STOCK], WAYS["run"], AGAIN]
    expected = [(program, way) for program in (STARTUP, PLAIN) for way in ways]
    assert [(row["program"], row["way"]) for row in programs] == expected, programs
    for row in programs:
        assert row["ms_median"] > 0
        assert row["ratio"] > 0


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    one = Workshop(look_at(), tmp_path)
    with one.opened():
        yield one


@needs_compiler
def test_a_process_that_fails_gives_rows_with_its_reason(shop):
    def breaks(_: Workshop, source: Path, target: Path) -> None:
        assert (target / "ctypes_callback.py").read_text() == (
            source / "ctypes_callback.py"
        ).read_text()
        (target / "ctypes_callback.py").write_text("raise RuntimeError('on purpose')\n")

    binding = Binding("ctypes", "ctypes", breaks)
    shop.build_driver()
    assert shop.build(binding.key, breaks)
    rows = callbacks.measure(shop.interpreter, shop, binding, Plan(1, 100), lambda *_: None)
    assert [row["way"] for row in rows] == list(WAYS.values())
    for row in rows:
        assert row["note"].startswith("not measured: ")
        assert "on purpose" in row["note"]


def test_what_is_built_is_not_built_again_and_a_failure_is_tried_again(shop):
    built = []

    def fails(_: Workshop, __: Path, ___: Path) -> None:
        raise CannotBuild("on purpose")

    with pytest.raises(CannotBuild, match="on purpose"):
        shop.build("cython", fails)
    assert shop.build("cython", lambda *_: built.append(1))
    assert not shop.build("cython", lambda *_: built.append(2))
    assert built == [1]


def test_a_tool_that_fails_is_quoted_and_logged(shop):
    code = "import sys; sys.exit('first\\nfatal error: on purpose\\nlast')"
    with pytest.raises(CannotBuild, match=r"failed: fatal error: on purpose \(all of it: ") as said:
        shop.run(sys.executable, "-c", code)
    assert str(shop.log) in str(said.value)
    assert "first\nfatal error: on purpose\nlast" in shop.log.read_text()


def test_other_sources_are_built_elsewhere(shop, tmp_path, monkeypatch):
    changed = tmp_path / "sources"
    shutil.copytree(SOURCES, changed)
    monkeypatch.setattr("moored_lab.bench.workshop.HERE", tmp_path)
    monkeypatch.setattr("moored_lab.bench.workshop.SOURCES", changed)
    for name in ("workshop.py", "bindings.py"):
        shutil.copy(SOURCES.parent / name, tmp_path / name)
    assert Workshop(shop.interpreter, tmp_path).folder.name == shop.folder.name
    with (changed / "driver.c").open("a") as driver:
        driver.write("\n")
    assert Workshop(shop.interpreter, tmp_path).folder.name != shop.folder.name


@needs_compiler
def test_a_binding_that_cannot_be_built_has_a_row_with_the_reason(cache, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("cc", "as", "ld"):
        found = shutil.which(tool)
        assert found
        (tools / tool).symlink_to(found)
    path = tmp_path / "callbacks.json"
    words = ("--bindings", "pyo3", "--rounds", "1", "--json", path)
    done = _bench(*words, "--cache", tmp_path / "cache", PATH=str(tools))
    assert done.code == 0, done.err
    rows = [row for row in json.loads(path.read_text())["rows"] if "binding" in row]
    assert [row["note"] for row in rows] == [
        "not measured: there is no cargo; install Rust to measure PyO3"
    ]
    assert rows[0]["note"] in done.out
    assert "not judged: 1 that could not be measured" in done.out


def _judged(rows: list[Row], minor: int) -> dict[str, bool]:
    here = Path()
    interpreter = Interpreter(here, f"3.{minor}.0", minor, True, "abi", here, here, "0")
    return {goal.name: goal.met for goal in verdict.judge(interpreter, rows)}


def _row(way: str, callback: str, threads: int = 1, **figures: Any) -> Row:
    named = {"binding": figures.pop("binding", "ctypes"), "way": WAYS[way]}
    return {**named, "callback": callback, "threads": threads, "note": "", **figures}


def test_the_verdict_is_judged_by_the_figures():
    stock = _row(STOCK, EMPTY, times_faster=1, of_by_hand=70, locals_survive=False)
    fine = [stock, _row("install", EMPTY, times_faster=8, of_by_hand=7, locals_survive=False)]
    for way in ("keep_thread", "run"):
        for callback, faster in ((EMPTY, 40), (ASKS, 20), (LOGS, 5)):
            fine.append(_row(way, callback, times_faster=faster, of_by_hand=1.5))
        fine.append(_row(way, CHURN, 1000, resident_growth_kib=1024, states_left=0))
    fine.append({"program": STARTUP, "way": WAYS["run"], "ms_more": 15, "ratio": 2})
    fine.append({"program": PLAIN, "way": WAYS["run"], "ms_more": 9, "ratio": 1.02})
    judged = _judged(fine, 13)
    assert len(judged) == 15
    assert all(judged.values()), judged

    worse = {"times_faster": 0.99, "of_by_hand": 1.01, "ms_more": 1.01, "ratio": 1.01}
    poor = [
        {key: one * worse[key] if key in worse else one for key, one in row.items()}
        | ({"states_left": 1, "resident_growth_kib": 1025} if "states_left" in row else {})
        for row in fine
    ]
    assert not any(_judged(poor, 13).values())
    assert _judged(poor, 14)["install(), empty callback, ctypes"]  # there 6 x is enough


def test_the_verdict_says_who_is_worst_and_leaves_out_who_keeps_already():
    rows = [
        _row(STOCK, EMPTY, binding=name, times_faster=1, locals_survive=name == "cffi")
        for name in ("ctypes", "SWIG", "cffi")
    ]
    rows += [
        _row("install", EMPTY, binding=name, times_faster=faster)
        for name, faster in (("ctypes", 12), ("SWIG", 9), ("cffi", 1))
    ]
    assert _judged(rows, 12) == {"install(), empty callback, worst of 2 (SWIG)": True}


def test_where_nothing_is_to_be_gained_nothing_is_promised():
    rows = [
        _row(STOCK, EMPTY, times_faster=1, of_by_hand=2, locals_survive=False),
        _row("keep_thread", EMPTY, times_faster=2, of_by_hand=1, locals_survive=True),
    ]
    assert list(_judged(rows, 10)) == [
        "keep_thread(), empty callback, against kept by hand, ctypes"
    ]


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["--bindings", "ctypes,nosuch"], "there is no binding 'nosuch'; there are: plain_c,", 2),
        (["--bindings", ","], "--bindings ,", 2),
        (["--python", "/no/such/python"], "--python /no/such/python: there is no such program", 2),
        (["--python", "/bin/true"], "it does not answer as a Python does", 2),
        (["--rounds", "0"], "--rounds 0", 2),
        (["--json", "/no/such/place/a.json"], "/no/such/place", 2),
        (["--cache", "/dev/null"], "name a folder with --cache", 3),
    ],
)
def test_bad_input_is_one_line(words, said, code):
    done = _bench(*words)
    assert done.code == code
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_python_without_moored_is_told_how_to_get_it(tmp_path):
    succeed(sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare")
    python = tmp_path / "bare" / "bin" / "python"
    done = _bench("--python", python)
    assert done.code == 2
    assert f"in a checkout of moored: {python} -m pip install ." in done.err
    assert len(done.err.splitlines()) == 1


def test_no_compiler_is_one_line_and_exit_3(tmp_path):
    done = _bench("--cache", tmp_path, PATH=str(tmp_path))
    assert done.code == 3
    assert done.err == (
        "moored: bench callbacks: there is no C compiler (cc); install one, on Debian: gcc\n"
    )


def test_under_moored_run_it_would_measure_nothing_stock():
    done = _bench(MOORED_RUN="1 k")
    assert done.code == 2
    assert "start it without moored run" in done.err
