"""The `moored` command around its commands: version, help, errors and exit codes."""

from __future__ import annotations

import argparse
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
