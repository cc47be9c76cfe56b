"""Runs a program stock and under `moored run`, and tells how it ended and what was seen."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).with_name("scripts")
LAUNCHER = Path(sysconfig.get_path("scripts")) / "moored"
LIMIT_SECONDS = 100

STOCK, KEPT = WAYS = ("stock", "kept")


@dataclass
class Ran:
    """How a program ended; what its callbacks saw of their threads, and what moored did."""

    code: int
    out: str
    talk: str
    saw: dict[str, int] = field(default_factory=dict)
    did: dict[str, int] = field(default_factory=dict)


class Program:
    """A program that runs in a folder, stock or kept."""

    def __init__(self, way: str, words: list[str | Path], folder: Path, **variables: str) -> None:
        self._counts = folder / "counts.json"
        python = [sys.executable] if way == STOCK else [LAUNCHER, "run", "--json", self._counts]
        self.process = subprocess.Popen(
            [*python, *words],
            env=_environment(folder) | variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that one that does not end is ended with its children
        )

    def finish(self) -> Ran:
        """Wait for its end."""
        try:
            out, talk = self.process.communicate(timeout=LIMIT_SECONDS)
        finally:
            self.kill()
        assert not [line for line in talk.splitlines() if "moored" in line], talk
        ran = Ran(self.process.returncode, out, talk)
        for line in talk.splitlines():
            if line.startswith("witness "):
                ran.saw = json.loads(line.removeprefix("witness "))
        if self._counts.exists():
            ran.did = json.loads(self._counts.read_text())["rows"][0]
        return ran

    def stop(self, number: signal.Signals) -> Ran:
        """Ask it to end, and wait until it has."""
        self.process.send_signal(number)
        return self.finish()

    def kill(self) -> None:
        """End what is still there of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def started(way: str, words: list[str | Path], folder: Path, **variables: str) -> Iterator[Program]:
    """Start a program that ends by being asked; it does not outlive the block."""
    program = Program(way, words, folder, **variables)
    try:
        yield program
    finally:
        program.kill()


def folder_for(way: str, parent: Path) -> Path:
    """Make a folder for one of the ways, named for it."""
    folder = parent / way
    folder.mkdir()
    return folder


def both(words: list[str | Path], parent: Path, **variables: str) -> tuple[Ran, Ran]:
    """Run a program both ways; what it says and how it ends must be the same."""
    stock, kept = (
        Program(way, words, folder_for(way, parent), **variables).finish() for way in WAYS
    )
    assert stock.out, stock.talk
    assert kept.out == stock.out
    assert kept.code == stock.code, kept.talk
    return stock, kept


def need(*modules: str) -> None:
    """Skip, and say why, where what a program imports is not there."""
    for module in modules:
        package, _, _ = module.partition(".")
        if importlib.util.find_spec(package) is None or importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'moored[programs]'")


def _environment(folder: Path) -> dict[str, str]:
    """Return what programs run with: nothing of the tests' own, and no device of this machine."""
    silent = folder / "asoundrc"
    silent.write_text("pcm.!default { type null }\nctl.!default { type null }\n")
    mine = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    return mine | {
        "ALSA_CONFIG_PATH": str(silent),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(SCRIPTS),
        "QT_QPA_PLATFORM": "offscreen",
    }
