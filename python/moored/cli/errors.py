"""How a command ends: its exit code, and the one line that it says when it cannot go on."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit code means. A program that `moored run` runs keeps its own."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    NOT_POSSIBLE_HERE = 3
    MISSED = 4  # under --strict: a goal was missed, or there are findings
    CANNOT_BE_RUN = 126  # moored run: the program is there and cannot be started
    NOT_FOUND = 127  # moored run: there is no such program
    INTERRUPTED = 130


class CommandError(Exception):
    """One clear line for the user (what, why, what to do), and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
