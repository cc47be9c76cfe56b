"""moored doctor report: formats, places, and exit codes."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path

import pytest
from doctor_recordings import churning, healthy

from moored.cli.errors import CommandError, ExitCode
from moored.doctor import capture, reporting
from moored.doctor.recording import Recording


def report(*words: str) -> int:
    parser = argparse.ArgumentParser()
    reporting.add_report_arguments(parser)
    return int(reporting.run_report(parser.parse_args(words)))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """What every file is read as."""
    made = churning()
    monkeypatch.setattr(capture, "read", lambda path: made)
    return made


@pytest.mark.usefixtures("recorded")
def test_the_terminal_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("a.rec") == 0
    said = capsys.readouterr()
    assert said.out.startswith("43,120 temporary thread states")
    assert said.err == ""


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("form", ["html", "json", "firefox", "collapsed", "speedscope", "terminal"])
def test_every_format_goes_to_a_file_or_a_pipe(
    form: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert report("a.rec", "-f", form) == 0
    piped = capsys.readouterr().out
    path = tmp_path / "made"
    assert report("a.rec", "-f", form, "-o", str(path)) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"{form}: {path}\n")
    assert path.read_text() == piped
    assert os.listdir(tmp_path) == ["made"]
    if form in ("json", "firefox", "speedscope"):
        json.loads(piped)


def test_findings_are_an_exit_code_under_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "read", lambda path: churning())
    assert report("a.rec", "--strict") == ExitCode.MISSED == 4
    assert report("a.rec") == 0
    monkeypatch.setattr(capture, "read", lambda path: healthy())
    assert report("a.rec", "--strict") == 0


@pytest.mark.usefixtures("recorded")
def test_a_page_is_not_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(CommandError, match="say where it goes, with -o FILE") as refused:
        report("a.rec", "-f", "html")
    assert refused.value.exit_code == ExitCode.USAGE


@pytest.mark.usefixtures("recorded")
def test_what_is_there_stays_what_it_is(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(target)
    assert report("a.rec", "-o", str(link)) == 0
    assert link.is_symlink()
    assert target.read_text().startswith("43,120")
    twin = tmp_path / "twin"
    twin.hardlink_to(target)
    assert report("a.rec", "-f", "json", "-o", str(twin)) == 0
    assert target.read_text() == twin.read_text()
    assert report("a.rec", "-o", os.devnull) == 0


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("place", "why"),
    [("missing/file", "No such file"), (".", "directory"), ("/dev/full", "No space left")],
)
def test_a_place_that_cannot_be_written(
    place: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=f"cannot write {place}: .*{why}"):
        report("a.rec", "-o", place)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("recorded")
def test_names_that_are_no_text_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "read", lambda path: churning(command="a\udcff.py"))
    for form in (reporting.TERMINAL, *reporting.EXPORTS):
        assert report("a.rec", "-f", form, "-o", str(tmp_path / form)) == 0


def test_an_unknown_format_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        report("a.rec", "-f", "pdf")
    assert ended.value.code == 2
