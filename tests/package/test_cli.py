"""The `moored` command around its commands: version, help, errors and exit codes."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.limits import HANG_S
from support.processes import Ending, finish

import moored
from moored import cli
from moored.cli import registry
from moored.cli.errors import CommandError, ExitCode

INSTALLED = registry.commands()


def plug(monkeypatch: pytest.MonkeyPatch, **outcomes: BaseException | int) -> None:
    """Plug in commands that take --size and end as the test wants; ImportError is its module's."""

    def import_module(name: str) -> SimpleNamespace:
        outcome = outcomes[name]
        if isinstance(outcome, ImportError):
            raise outcome

        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--size", type=int)

        def run(args: argparse.Namespace) -> int:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        return SimpleNamespace(HELP="measure something", add_arguments=add_arguments, run=run)

    monkeypatch.setattr(registry, "commands", lambda: {name: name for name in outcomes})
    monkeypatch.setattr(registry, "importlib", SimpleNamespace(import_module=import_module))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"moored {moored.__version__}\n"


def test_python_dash_m_is_the_same_command() -> None:
    command = Path(sys.executable).with_name("moored")
    for words in ([sys.executable, "-m", "moored"], [command]):
        done = finish(*words, "--version")
        assert (done.code, done.out) == (0, f"moored {moored.__version__}\n")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in INSTALLED)


def every_command(modules: Mapping[str, str]) -> list[list[str]]:
    """The words of each command, and of those in it."""
    found = []
    for name, module in modules.items():
        found.append([name])
        nested = getattr(importlib.import_module(module), "COMMANDS", {})
        found += [[name, *words] for words in every_command(nested)]
    return found


@pytest.mark.parametrize("words", every_command(INSTALLED), ids=" ".join)
def test_every_command_explains_itself(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    module = INSTALLED[words[0]]
    if words[1:]:
        module = importlib.import_module(module).COMMANDS[words[1]]
    assert importlib.import_module(module).HELP in said


def test_the_labs_commands_say_where_they_come_from_when_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    for name in registry.OF_THE_LAB:
        assert cli.main([name, "--seconds", "1"]) == 3
        assert capsys.readouterr().err == (
            f"moored: {name}: it comes with moored-lab, which is not installed: "
            "in a checkout of moored, pip install ./lab\n"
        )


def test_a_plugged_in_command_hides_none_of_moored_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    group = registry.ENTRY_POINTS
    plugged = [EntryPoint(name, "elsewhere", group) for name in ("other", "run", "bench", "lab")]
    monkeypatch.setattr(registry, "entry_points", lambda group: plugged)
    assert list(registry.commands()) == ["run", "doctor", "top", "lab", "bench", "other"]
    assert registry.commands()["run"] == "moored.cli.run"


def test_a_command_of_a_group_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("coffee", "torture"):
        assert cli.main(["bench", name]) == 2
        there_are = "attach, callbacks, delivery, server, state"
        said = f"there is no command {name!r}; there are: {there_are}"
        assert capsys.readouterr().err == f"moored: {said}\n"


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["laboratory"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err == "moored: there is no command 'laboratory'; "
        "there are: run, doctor, top, lab, bench, torture\n"
    )


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_bad_argument_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, lab=0)
    with pytest.raises(SystemExit) as ended:
        cli.main(["lab", "--size", "big"])
    assert ended.value.code == 2


@pytest.mark.parametrize("status", [0, 1, 4])
def test_a_commands_exit_code_is_ours(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, lab=status)
    assert cli.main(["lab", "--size", "3"]) == status


def test_command_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = CommandError("port 80 is taken; choose another with --port")
    plug(monkeypatch, lab=error)
    assert cli.main(["lab"]) == 1
    assert capsys.readouterr().err == "moored: port 80 is taken; choose another with --port\n"


def test_missing_module_hurts_only_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plug(monkeypatch, lab=ImportError("No module named 'rich'"), bench=0)
    assert cli.main(["lab"]) == ExitCode.NOT_POSSIBLE_HERE
    assert capsys.readouterr().err == "moored: lab cannot run here: No module named 'rich'\n"
    assert cli.main(["bench"]) == 0
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0


def test_interrupt_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plug(monkeypatch, lab=KeyboardInterrupt())
    assert cli.main(["lab"]) == 130
    assert capsys.readouterr().err == ""


def test_reader_that_goes_away_is_no_error() -> None:
    script = (
        "import sys, __main__\n"
        "from moored.cli import main, registry\n"
        "HELP = ''\n"
        "def add_arguments(parser): pass\n"
        "def run(args):\n"
        "    while True: print('line')\n"
        "registry.commands = lambda: {'lab': '__main__'}\n"
        "sys.exit(main(['lab']))\n"
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


def in_a_shell(*words: str, redirect: str) -> Ending:
    """Run the command by a shell, which redirects."""
    command = [sys.executable, "-m", "moored", *words]
    return finish("sh", "-c", f'"$@" {redirect}', "sh", *command)


@pytest.mark.parametrize("words", [["--version"], ["lab", "--help"], ["--help"], ["lab"]])
def test_a_closed_stdout_is_one_line(words: list[str]) -> None:
    done = in_a_shell(*words, redirect=">&-")
    assert done.code == 1
    assert done.err == "moored: stdout is closed; send it somewhere, as in >/dev/null\n"


@pytest.mark.parametrize("words", [["--version"], ["lab", "--help"], ["--help"]])
def test_a_full_disk_behind_stdout_is_one_line(words: list[str]) -> None:
    done = in_a_shell(*words, redirect=">/dev/full")
    assert done.code == 1
    assert done.err == "moored: cannot write to stdout: No space left on device\n"


def test_closed_streams_do_not_mix() -> None:
    done = in_a_shell("laboratory", redirect="2>&-")
    assert (done.code, done.out, done.err) == (2, "", "")
    done = in_a_shell("laboratory", redirect=">&- 2>&-")
    assert (done.code, done.out, done.err) == (2, "", "")
