"""Child processes of the tests: one way to run them, each with a time limit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .limits import HANG_S

Word = object
"""Of a command line: what str() makes of it."""


@dataclass
class Ending:
    """What a process left behind; `row` is what `moored run --json` wrote, where a test asks."""

    code: int
    out: str
    err: str
    row: dict[str, Any] = field(default_factory=dict)


def finish(
    *words: Word,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    folder: str | Path | None = None,
    limit: float = HANG_S,
    **variables: str,
) -> Ending:
    """Run a command to its end. `variables` are added to its environment."""
    done = subprocess.run(
        [str(word) for word in words],
        env={**(os.environ if env is None else env), **variables},
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=limit,
    )
    return Ending(done.returncode, done.stdout, done.stderr)


def succeed(*words: Word, **options: Any) -> str:
    """Run a command that must end well, and return its stdout; what it said is the reason."""
    ending = finish(*words, **options)
    command = " ".join(str(word) for word in words)
    assert ending.code == 0, f"exit code {ending.code}: {command}\n{ending.out}{ending.err}"
    return ending.out


def run_script(script: str, *options: Word, **others: Any) -> Ending:
    """Run an indented Python script in a process of its own."""
    words = (sys.executable, "-X", "faulthandler", *options, "-c", textwrap.dedent(script))
    return finish(*words, **others)


def run_moored(*words: Word, **options: Any) -> Ending:
    """Run the command `moored` with this interpreter."""
    return finish(sys.executable, "-m", "moored", *words, **options)
