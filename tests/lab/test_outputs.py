"""What the measuring commands write: tables, documents, and what goes wrong with them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from support.processes import Ending, finish

from moored import cli

TALKER = """
import sys
from moored.cli import main, registry
from moored_lab.commands import outputs
from moored_lab.report import document, table
HELP = "\u00b1"
def add_arguments(parser):
    outputs.add_json(parser)
@outputs.tables_beside_document
def run(args):
    outputs.check(args)
    row = {"what": "caf\u00e9 \u00b1", "ns": 5, "ns_min": 4, "ns_max": 6}
    try:
        outputs.write(args, document.describe("moored lab", [row]))
    finally:
        columns = [table.Column("what", "what"), table.Column("ns", "ns", 1, spread=True)]
        table.show(columns, [row])
    print("a verdict")
    return 0
registry.commands = lambda: {"lab": "__main__"}
sys.exit(main(["lab", *sys.argv[1:]]))
"""


def talk(*words: str, redirect: str = "", **variables: str) -> Ending:
    """Run a command that shows a row and a verdict by a shell, which redirects."""
    command = [sys.executable, "-c", TALKER, *words]
    return finish("sh", "-c", f'"$@" {redirect}', "sh", *command, **variables)


def test_results_are_written_though_stdout_is_full(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    done = talk("--json", str(path), redirect=">/dev/full")
    assert done.code == 1
    assert done.err == (f"rows: {path}\nmoored: cannot write to stdout: No space left on device\n")
    assert json.loads(path.read_text())["rows"][0]["ns"] == 5


def test_results_are_shown_though_they_cannot_be_written() -> None:
    done = talk("--json", "/dev/full")
    assert done.code == 1
    assert done.err == "moored: cannot write /dev/full: No space left on device\n"
    assert "5.0 ±1.0" in done.out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_no_encoding_costs_the_results(encoding: str) -> None:
    done = talk(PYTHONIOENCODING=encoding)
    assert (done.code, done.err) == (0, "")
    assert "a verdict" in done.out
    if encoding == "ascii":
        assert "5.0 +-1.0" in done.out


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_json_on_stdout_is_the_document_alone(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    for redirect in ("", ">>log"):
        done = talk("--json", path, redirect=redirect)
        assert done.code == 0
        assert "a verdict" in done.err
        text = (tmp_path / "log").read_text() if redirect else done.out
        assert json.loads(text)["rows"][0]["ns"] == 5
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "-").exists()


def test_json_into_the_file_that_is_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert talk("--json", "log", redirect=">log").code == 0
    assert json.loads((tmp_path / "log").read_text())["rows"][0]["ns"] == 5


def test_a_reader_that_has_gone_leaves_the_document(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for where in (str(path), "-"):
        # The shell's `:` reads nothing; what is written before it has gone is lost as well.
        done = talk("--json", where, redirect="| :")
        assert "Traceback" not in done.err
        assert "Broken pipe" not in done.err
    assert path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("bench", [["bench", "callbacks"], ["bench", "delivery"], ["torture"]])
def test_a_cache_on_a_full_disk_is_one_line(bench: list[str], tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64k none "$0"; head -c 1M /dev/zero >"$0"/filler; "$@"'
    words = [sys.executable, "-m", "moored", *bench, "--cache", str(tmp_path)]
    done = finish("unshare", "--mount", "sh", "-c", script, tmp_path, *words)
    if "unshare" in done.err or "mount" in done.err:
        pytest.skip("nothing can be mounted here")
    assert done.code == 3
    last = done.err.splitlines()[-1]
    assert last.startswith("moored: ")
    assert "No space left on device" in last
    assert "Traceback" not in done.err


@pytest.mark.parametrize("jobs", ["0", "-1", "100000"])
def test_the_jobs_of_the_torture_are_bounded(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["torture", "--cases", "1", "--jobs", jobs]) == 2
    most = 8 * (os.cpu_count() or 1)
    assert f"--jobs {jobs}: give 1 to {most}, 8 for each CPU" in capsys.readouterr().err
