"""Attaching: records a process that is already running, for a while.

The process is asked to load the recorder and to have its loaded objects call it; when it has loaded
more it is asked to look again; and at the end, to take it all back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from moored.cli.errors import CommandError, ExitCode

from . import target
from .remote import PREFIX, Job, Remote, Unanswered, hold
from .running import INTERVAL_S, Sampler

PATIENCE_S = 5.0
"""How long a process has to answer, unless --timeout says otherwise."""


class Attached:
    """A process that is being recorded, from `with` until its end."""

    def __init__(
        self,
        pid: int,
        patience_s: float = PATIENCE_S,
        wakes: bool = False,
        asker: str = "doctor",
    ) -> None:
        self._target = target.look(pid, asker)
        target.check(self._target, asker)
        self._patience_s, self._wakes, self._asker = patience_s, wakes, asker
        self._remote = Remote(self._target, asker)
        self.path = Path(f"{self._remote.folder}/capture.{pid}")
        self._begun = time.monotonic()
        self._sampler: Sampler | None = None
        self._files: frozenset[str] = frozenset()
        self._is_over = False

    def __enter__(self) -> Attached:
        try:
            self._begin()
        except BaseException:
            self._remote.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.end()
        finally:
            self._remote.close()

    @property
    def seconds(self) -> float:
        """How long it has been recorded."""
        return time.monotonic() - self._begun

    def _begin(self) -> None:
        pid = self._target.pid
        self._end_what_is_left()
        self._ask("begin", str(self.path.with_suffix("")), self._target.command)
        if not self.path.exists():
            raise CommandError(f"{self._asker}: process {pid} has ended", ExitCode.FAILED)
        self._begun = time.monotonic()
        self._files = frozenset(self._target.files)
        self._sampler = Sampler(pid, self.path, is_late=True)

    def _end_what_is_left(self) -> None:
        """End the recording of a doctor that was killed; an error for that of one that lives."""
        before = self._target.capture()
        if before is None or not before.parent.name.startswith(PREFIX):
            return
        try:
            held = hold(before.parent)
        except OSError:
            raise CommandError(
                f"{self._asker}: process {self._target.pid} is recorded already, by another "
                f"doctor; look on with: moored top {self._target.pid}",
                ExitCode.NOT_POSSIBLE_HERE,
            ) from None
        try:
            self._ask("end")
            shutil.rmtree(before.parent, ignore_errors=True)
        finally:
            os.close(held)

    def _ask(self, job: Job, *words: str) -> None:
        pid = self._target.pid
        self._remote.ask(job, *words)
        if self._wakes:
            self._remote.wake()
        try:
            self._remote.wait(job, self._patience_s)
        except Unanswered:
            raise CommandError(
                f"{self._asker}: process {pid} did not answer within {self._patience_s:g} s: its "
                "main thread runs no Python but waits in C (epoll, sleep, join); try --wake, "
                f"or start it under: {self._target.recorded_command}",
                ExitCode.NOT_POSSIBLE_HERE,
            ) from None

    def watch(self, seconds: float | None = None) -> bool:
        """Record for so long, or one interval; say whether the process goes on being recorded."""
        due = time.monotonic() + (INTERVAL_S if seconds is None else seconds)
        while not self._is_over:
            rest = due - time.monotonic()
            if rest <= 0:
                break
            if not self._remote.lives(min(INTERVAL_S, rest)):
                self._finish(self._remote.end())
            elif self._sampler is not None:
                self._sampler.take(self.seconds)
                self._look_for_later_loads()
        return not self._is_over

    def _look_for_later_loads(self) -> None:
        """Have the process look again when it has mapped a file that was not there before."""
        try:
            now = target.look(self._target.pid)
        except CommandError:
            return  # it is ending
        if str(self.path) not in now.files:
            self._finish("replaced")  # it has become another program
            return
        files = frozenset(now.files)
        if files - self._files:
            self._files = files
            with contextlib.suppress(CommandError):
                self._remote.ask("look_again")

    def end(self) -> None:
        """Have the process take everything back, if it still lives."""
        if self._is_over:
            return
        how: int | str = "detached"
        try:
            self._remote.ask("end")
            if self._wakes:
                self._remote.wake()
            if self._remote.wait("end", self._patience_s, withdraws=False) is None:
                how = self._remote.end()
        except Unanswered:
            self._remote.leave()
            print(
                f"moored: {self._asker}: process {self._target.pid} has not answered for "
                f"{self._patience_s:g} s; it stops recording when its main thread runs Python next",
                file=sys.stderr,
            )
        except CommandError:
            how = self._remote.end() if not self._remote.lives() else how
        self._finish(how)

    def _finish(self, how: int | str) -> None:
        if self._sampler is not None:
            self._sampler.finish(self.seconds, how)
        self._is_over = True


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the recording as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, what in before.items():
            signal.signal(number, what)
