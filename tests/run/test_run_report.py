"""--stats and --json: what a run says about itself at its end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from limits import HANG_S

import moored
from moored.report import document

OURS = ".".join(map(str, sys.version_info[:2]))
HAS_CHUNKS = sys.version_info >= (3, 11)


def numbers_of(table: str) -> dict[str, str]:
    lines = [line.rsplit("  ", 1) for line in table.splitlines() if line.startswith("  ")]
    return {name.strip(): value.strip() for name, value in lines}


def test_the_table_counts(kept):
    ending = kept("caller.free.call_on_threads(CALLBACK(visit), 3, 1001)", "--stats")
    version = ".".join(map(str, sys.version_info[:3]))
    assert ending.err.startswith(f"moored run: Python {version}")
    assert ending.err.splitlines()[0].endswith("states of native threads kept")
    numbers = numbers_of(ending.err)
    assert numbers["threads seen"] == numbers["states adopted"] == numbers["states freed"] == "3"
    assert numbers["states kept now"] == numbers["states left to Python"] == "0"
    assert numbers["calls served from a kept state"] == "3000"
    assert (int(numbers["chunk misses"]) > 0) == HAS_CHUNKS
    assert (numbers["estimated time saved"] != "0.0 ms") == HAS_CHUNKS


def test_with_the_cache_alone_only_chunks_are_counted(kept):
    ending = kept("caller.free.call_on_threads(CALLBACK(visit), 3, 5)", "--stats", "--fresh")
    assert "not kept, only the cache is used" in ending.err
    numbers = numbers_of(ending.err)
    assert "threads seen" not in numbers
    assert (int(numbers["chunk hits"]) >= 14) == HAS_CHUNKS


def test_the_document_is_that_of_the_other_commands(moored_run, tmp_path):
    path = tmp_path / "run.json"
    ending = moored_run(f"--json={path}", "-c", "print('\"it\\'s\"')")
    assert (ending.code, ending.err) == (0, "")
    written = json.loads(path.read_text())
    expected = document.describe(f"moored run --json={path} -c 'print('\"'\"''", [])
    assert list(written) == list(expected)
    for name in ("moored", "python", "machine"):
        assert written[name] == expected[name]
    assert written["moored"] == moored.__version__
    line = subprocess.run(
        ["sh", "-c", f"printf '%s|' {written['command']}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_S,
    ).stdout
    assert line == f"moored|run|--json={path}|-c|print('\"it\\'s\"')|"
    assert len(written["rows"]) == 1


def test_a_relative_path_is_the_users_not_the_programs(moored_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    assert moored_run("--json", "run.json", "-c", "import os; os.chdir('elsewhere')").code == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.json"]


def test_a_device_is_written_to(moored_run):
    ending = moored_run("--json=/dev/stdout", "-c", "pass")
    assert ending.code == 0
    assert json.loads(ending.out)["rows"][0]["threads_seen"] == 0


def test_a_full_disk_is_one_line(moored_run):
    ending = moored_run("--json=/dev/full", "-c", "import sys; sys.exit(3)")
    assert ending.code == 3
    assert ending.err == "moored: cannot write /dev/full: No space left on device\n"


def test_what_cannot_be_written_is_said_before_the_run(moored_run, tmp_path):
    path = tmp_path / "none" / "run.json"
    ending = moored_run(f"--json={path}", "-c", "print('it ran')")
    assert (ending.code, ending.out) == (2, "")
    assert ending.err == (
        f"moored: cannot write {path}: there is no directory {path.parent}; make it first\n"
    )
    ending = moored_run(f"--json={tmp_path}", "-c", "print('it ran')")
    assert ending.err == f"moored: cannot write {tmp_path}: it is a directory; name a file\n"


def test_a_child_has_a_table_of_its_own(kept):
    ending = kept(
        """
        import subprocess
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        child = subprocess.run([sys.executable, "-m", "three_visits"], check=True)
    """,
        "--stats",
    )
    heads = [line for line in ending.err.splitlines() if line.startswith("moored run:")]
    assert len(heads) == 2
    assert heads[0].startswith("moored run: process ")
    assert numbers_of(ending.err)["threads seen"] == "0"


def other_python() -> str | None:
    """Another Python than this one, which this moored was not built for."""
    found = [
        *(f"/usr/bin/python3.{minor}" for minor in range(8, 20)),
        *map(str, Path.home().glob(".pyenv/versions/*/bin/python3")),
    ]
    ask = "import sys; print(*sys.version_info[:2], sep='.')"
    for path in found:
        if not shutil.which(path):
            continue
        said = subprocess.run(
            [path, "-c", ask], capture_output=True, text=True, timeout=HANG_S
        ).stdout
        if said.strip() != OURS:
            return path
    return None


def test_another_python_is_left_alone_and_told(kept, moored_run, native, tmp_path):
    other = other_python()
    if other is None:
        pytest.skip("no other Python here")
    path = tmp_path / "run.json"
    ending = moored_run("--stats", f"--json={path}", "--exec", other, "-m", "three_visits")
    assert (ending.code, ending.out) == (0, "[1, 1, 1]\n")
    assert f"not kept: this moored was built for Python {OURS}, install it" in ending.err
    row = json.loads(path.read_text())["rows"][0]
    assert row["states_adopted"] == 0


def test_a_program_without_python_is_not_talked_about(moored_run, tmp_path):
    path = tmp_path / "run.json"
    ending = moored_run("--stats", f"--json={path}", "--exec", "true")
    assert (ending.code, ending.out, ending.err) == (0, "", "")
    assert json.loads(path.read_text())["python"] == "none"
