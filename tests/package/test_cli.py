"""The `moored` command around its commands: version, help, errors and exit codes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from limits import HANG_S

import moored
from moored import cli
from moored.cli.errors import NOT_POSSIBLE_HERE, CommandError


class FakeCommand:
    """A command that takes --size and does what the test wants."""

    HELP = "measure something"

    def __init__(self, outcome: BaseException | int) -> None:
        self.outcome = outcome

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--size", type=int)

    def run(self, args: argparse.Namespace) -> int:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def fake(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int) -> None:
    monkeypatch.setattr(cli, "load", lambda name: FakeCommand(outcome))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"moored {moored.__version__}\n"


def test_python_dash_m_is_the_same_command() -> None:
    command = Path(sys.executable).with_name("moored")
    for words in ([sys.executable, "-m", "moored"], [command]):
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=HANG_S)
        assert (done.returncode, done.stdout) == (0, f"moored {moored.__version__}\n")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert cli.load(name).HELP in " ".join(capsys.readouterr().out.split())


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["laboratory"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err
        == "moored: there is no command 'laboratory'; there are: run, lab, bench, torture\n"
    )


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_bad_argument_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 0)
    with pytest.raises(SystemExit) as ended:
        cli.main(["lab", "--size", "big"])
    assert ended.value.code == 2


@pytest.mark.parametrize("status", [0, 1, 4])
def test_a_commands_exit_code_is_ours(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, status)
    assert cli.main(["lab", "--size", "3"]) == status


def test_command_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, CommandError("port 80 is taken; choose another with --port", 1))
    assert cli.main(["lab"]) == 1
    assert capsys.readouterr().err == "moored: port 80 is taken; choose another with --port\n"


def test_missing_module_hurts_only_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(name: str) -> cli.Command:
        if name == "lab":
            raise ImportError("No module named 'rich'")
        return FakeCommand(0)

    monkeypatch.setattr(cli, "load", load)
    assert cli.main(["lab"]) == NOT_POSSIBLE_HERE
    assert capsys.readouterr().err == "moored: lab cannot run here: No module named 'rich'\n"
    assert cli.main(["bench"]) == 0
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0


def test_interrupt_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, KeyboardInterrupt())
    assert cli.main(["lab"]) == 130
    assert capsys.readouterr().err == ""


def test_reader_that_goes_away_is_no_error() -> None:
    script = (
        "import sys; from moored import cli\n"
        "class Talker:\n"
        "    HELP = ''\n"
        "    def add_arguments(self, parser): pass\n"
        "    def run(self, args):\n"
        "        while True: print('line')\n"
        "cli.load = lambda name: Talker\n"
        "Talker = Talker()\n"
        "sys.exit(cli.main(['lab']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as talker:
        assert talker.stdout is not None
        assert talker.stderr is not None
        talker.stdout.readline()
        talker.stdout.close()
        assert talker.wait(HANG_S) == 1
        assert talker.stderr.read() == ""


def run_cli(
    *words: str, redirect: str = "", script: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command by a shell, which redirects; with a script, a command of the test's own."""
    command = [sys.executable, "-m", "moored", *words]
    if script:
        command = [sys.executable, "-c", TALKER + script, *words]
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", *command],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=HANG_S,
    )


TALKER = """
import sys
from moored import cli
from moored_lab.commands import outputs
from moored_lab.report import document, table
class Talker:
    HELP = "\u00b1"
    def add_arguments(self, parser):
        outputs.add_json(parser)
    def run(self, args):
        outputs.check(args)
        row = {"what": "caf\u00e9 \u00b1", "ns": 5, "ns_min": 4, "ns_max": 6}
        try:
            outputs.write(args, document.describe("moored lab", [row]))
        finally:
            columns = [table.Column("what", "what"), table.Column("ns", "ns", 1, spread=True)]
            table.show(columns, [row])
        print("a verdict")
        return 0
cli.load = lambda name: Talker()
"""
MEASURES = "sys.exit(cli.main(['lab', *sys.argv[1:]]))"


@pytest.mark.parametrize("words", [["--version"], ["lab", "--help"], ["--help"], ["lab"]])
def test_a_closed_stdout_is_one_line(words: list[str]) -> None:
    done = run_cli(*words, redirect=">&-")
    assert done.returncode == 1
    assert done.stderr == "moored: stdout is closed; send it somewhere, as in >/dev/null\n"


@pytest.mark.parametrize("words", [["--version"], ["lab", "--help"], ["--help"]])
def test_a_full_disk_behind_stdout_is_one_line(words: list[str]) -> None:
    done = run_cli(*words, redirect=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "moored: cannot write to stdout: No space left on device\n"


def test_closed_streams_do_not_mix() -> None:
    done = run_cli("laboratory", redirect="2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    done = run_cli("laboratory", redirect=">&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_results_are_written_though_stdout_is_full(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    done = run_cli("--json", str(path), script=MEASURES, redirect=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        f"rows: {path}\nmoored: cannot write to stdout: No space left on device\n"
    )
    assert json.loads(path.read_text())["rows"][0]["ns"] == 5


def test_results_are_shown_though_they_cannot_be_written() -> None:
    done = run_cli("--json", "/dev/full", script=MEASURES)
    assert done.returncode == 1
    assert done.stderr == "moored: cannot write /dev/full: No space left on device\n"
    assert "5.0 ±1.0" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_no_encoding_costs_the_results(encoding: str) -> None:
    done = run_cli(script=MEASURES, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a verdict" in done.stdout
    if encoding == "ascii":
        assert "5.0 +-1.0" in done.stdout


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_json_on_stdout_is_the_document_alone(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    for redirect in ("", ">>log"):
        done = run_cli("--json", path, script=MEASURES, redirect=redirect)
        assert done.returncode == 0
        assert "a verdict" in done.stderr
        text = (tmp_path / "log").read_text() if redirect else done.stdout
        assert json.loads(text)["rows"][0]["ns"] == 5
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "-").exists()


def test_json_into_the_file_that_is_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("--json", "log", script=MEASURES, redirect=">log").returncode == 0
    assert json.loads((tmp_path / "log").read_text())["rows"][0]["ns"] == 5


def test_a_reader_that_has_gone_leaves_the_document(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for where in (str(path), "-"):
        # The shell's `:` reads nothing; what is written before it has gone is lost as well.
        done = run_cli("--json", where, script=MEASURES, redirect="| :")
        assert "Traceback" not in done.stderr
        assert "Broken pipe" not in done.stderr
    assert path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("bench", [["bench", "callbacks"], ["bench", "delivery"], ["torture"]])
def test_a_cache_on_a_full_disk_is_one_line(bench: list[str], tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64k none "$0"; head -c 1M /dev/zero >"$0"/filler; "$@"'
    words = [sys.executable, "-m", "moored", *bench, "--cache", str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(tmp_path), *words],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("moored: ")
    assert "No space left on device" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("jobs", ["0", "-1", "100000"])
def test_the_jobs_of_the_torture_are_bounded(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["torture", "--cases", "1", "--jobs", jobs]) == 2
    most = 8 * (os.cpu_count() or 1)
    assert f"--jobs {jobs}: give 1 to {most}, 8 for each CPU" in capsys.readouterr().err
