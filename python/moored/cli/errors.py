"""The one way in which a command says that it cannot go on."""

from __future__ import annotations

FAILED = 1
USAGE = 2
NOT_POSSIBLE_HERE = 3


class CommandError(Exception):
    """One clear line for the user (what, why, what to do), and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
