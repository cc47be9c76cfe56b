"""Process: a script of this folder on the measured interpreter, stock or under `moored run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moored_lab.bench.interpreter import Interpreter
from moored_lab.wakeup.process import TalkingProcess

HERE = Path(__file__).resolve().parent
ANSWER_S = 120.0


class ProcessFailed(Exception):
    """A measured process could not start, or broke; the message is the reason, for its rows."""


class MeasuredProcess(TalkingProcess):
    """The process; it answers each line with one line, and ends when there are no more."""

    def __init__(self, interpreter: Interpreter, run: bool, script: str, *words: str) -> None:
        start = interpreter.run_command if run else [str(interpreter.executable)]
        super().__init__("measured process", [*start, str(HERE / script), *words])

    def ready(self) -> None:
        """Wait until it can be told something."""
        self.hear("ready", ANSWER_S)

    def ask(self, do: str, event: str, **details: object) -> dict[str, Any]:
        """Tell it to do something, and wait for what it says to that."""
        self.tell({"do": do, **details})
        return self.hear(event, ANSWER_S)

    def finish(self) -> None:
        """Let it end as a Python program does; that must go well too."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        if self._wait(ANSWER_S) != 0:
            raise self.death()

    def death(self) -> Exception:
        """Tell how it ended, in one line."""
        code = self._wait(5.0)
        if code is None:
            return ProcessFailed("its process was done, but did not end")
        self._readers[1].join(1.0)
        words = [line.strip() for line in self._words if line.strip()]
        last = f": {words[-1]}" if words else ""
        return ProcessFailed(f"its process ended with {code}{last}")


def turned(ways: Sequence[str], by: int) -> list[str]:
    """Begin with another one each time: what comes first may fare better."""
    at = by % len(ways) if ways else 0
    return [*ways[at:], *ways[:at]]
