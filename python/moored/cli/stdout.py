"""Stdout: what cannot be written to it is noted, because not everything that prints says so."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import Any, TextIO


class Stdout:
    """The stream in front of which it stands, and the first error that it gave."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            # In order with stderr, also in a file; no sign that cannot be written ends a command.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, and note what fails: argparse keeps it to itself."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self.failed = self.failed or error
            raise

    def flush(self) -> None:
        """Flush, and note what fails."""
        try:
            self._stream.flush()
        except OSError as error:
            self.failed = self.failed or error
            raise

    def finish(self) -> None:
        """Raise what has failed in all the time."""
        if not self.failed:  # else it would fail once more, with another error
            self.flush()
        if self.failed:
            raise self.failed

    def give_up(self) -> None:
        """Have Python's own flush at exit succeed, whatever is left to write."""
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
