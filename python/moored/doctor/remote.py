"""Remote: has a running process do what a script says, and hears what became of it.

The process's main thread runs the script the next time that it runs Python, which may be never, or
long after the doctor has gone. So a script first takes a token away, and does nothing without it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import moored
from moored.cli.errors import CommandError, ExitCode

from .target import Target

Job = Literal["begin", "look_again", "end"]

PREFIX = "moored-doctor-"
"""How the names of the doctors' folders begin."""
LIVES = "lives"
"""The file in a folder that its doctor holds locked."""
POLL_S = 0.01
NOTHING = "/dev/null"
"""A script that does nothing, and is always there."""

SCRIPT = """\
def moored_doctor():
    import json, os
    folder, job, words, library, version = {given!r}
    path = os.path.join(folder, job)
    try:
        os.rename(path + ".wanted", path + ".begun")
    except OSError:
        return
    try:
        import importlib.machinery, importlib.util
        loader = importlib.machinery.ExtensionFileLoader("moored._attach", library)
        spec = importlib.util.spec_from_file_location(loader.name, library, loader=loader)
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        if job == "begin" and module.is_recording():
            raise RuntimeError("it is recorded already, by another doctor")
        answer = {{"done": getattr(module, job)(*words)}}
    except BaseException as error:
        answer = {{"failed": str(error) or type(error).__name__}}
    with open(path + ".part", "w") as file:
        json.dump(answer, file)
    os.rename(path + ".part", path + ".done")
    if os.path.exists(os.path.join(folder, "left")):
        import shutil
        shutil.rmtree(folder, ignore_errors=True)
moored_doctor()
del moored_doctor
"""


class Unanswered(Exception):
    """The process has not run the script in time, and will not any more."""


class Remote:
    """The way to one process: a folder that it can read and write, and a handle of the process."""

    def __init__(self, target: Target, asker: str) -> None:
        self.target, self._asker = target, asker
        try:
            self._process = os.pidfd_open(target.pid)
        except OSError as error:
            raise CommandError(
                f"{self._asker}: there is no process {target.pid}", ExitCode.USAGE
            ) from error
        self._is_left = False
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        (self.folder / LIVES).touch()
        self._lives = hold(self.folder)
        try:
            self._give(self.folder)
            self._library = _library(asker)
            for path in (self.folder, Path(self._library)):
                self._check_seen(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Delete the folder, and with it what a script needs to do anything."""
        os.close(self._process)
        os.close(self._lives)
        if not self._is_left:
            shutil.rmtree(self.folder, ignore_errors=True)

    def leave(self) -> None:
        """Have the process do what it was asked for last whenever it can, and delete the folder."""
        (self.folder / "left").touch()
        self._is_left = True

    def lives(self, wait_s: float = 0.0) -> bool:
        """Wait so long for the end of the process; say whether it still lives."""
        ended, _, _ = select.select([self._process], [], [], wait_s)
        return not ended

    def end(self) -> int | str:
        """Return how the process ended, as Popen.returncode does; `gone` if that is not known.

        Its parent alone is told. Until that has asked, the kernel tells others, too.
        """
        try:
            status = Path(f"/proc/{self.target.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return "gone"
        return os.waitstatus_to_exitcode(int(status[-1])) if status[0] == "Z" else "gone"

    def wake(self) -> None:
        """Stop the process for an instant: a main thread that waits in epoll or poll looks up."""
        for number in (signal.SIGSTOP, signal.SIGCONT):
            with suppress(OSError):
                signal.pidfd_send_signal(self._process, number)

    def ask(self, job: Job, *words: object) -> None:
        """Have the process do that when its main thread runs Python next."""
        given = (str(self.folder), job, words, self._library, moored.__version__)
        script = self.folder / f"{job}.py"
        script.write_text(SCRIPT.format(given=given))
        (self.folder / f"{job}.done").unlink(missing_ok=True)
        (self.folder / f"{job}.wanted").touch()
        self._give(script)
        self._run(str(script))

    def answer(self, job: Job) -> Any:
        """Return what came of it, or None as yet; an error where it failed."""
        try:
            said = json.loads((self.folder / f"{job}.done").read_text())
        except FileNotFoundError:
            return None
        if "failed" in said:
            raise CommandError(
                f"{self._asker}: process {self.target.pid} cannot be recorded: {said['failed']}",
                ExitCode.NOT_POSSIBLE_HERE,
            )
        return said["done"]

    def wait(self, job: Job, patience_s: float, withdraws: bool = True) -> Any:
        """Wait for the answer; Unanswered when the process has not begun with it in time.

        None when the process ended meanwhile. With `withdraws` it will not begin any more.
        """
        due = time.monotonic() + patience_s
        while (said := self.answer(job)) is None:
            if not self.lives(POLL_S):
                return self.answer(job)
            if time.monotonic() >= due and (not withdraws or self._withdraw(job)):
                raise Unanswered
        return said

    def _withdraw(self, job: Job) -> bool:
        """Take the token away; False when the process was faster, and is at it."""
        try:
            (self.folder / f"{job}.wanted").unlink()
        except FileNotFoundError:
            return False
        with suppress(CommandError):
            self._run(NOTHING)  # it would complain of a script that is gone
        return True

    def _run(self, script: str) -> None:
        pid = self.target.pid
        try:
            sys.remote_exec(pid, script)  # type: ignore[attr-defined,unused-ignore]
        except PermissionError as error:
            raise CommandError(
                f"{self._asker}: process {pid} is not to be attached to ({error.strerror}): "
                "be root, or its user where kernel.yama.ptrace_scope is 0",
                ExitCode.NOT_POSSIBLE_HERE,
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            if not self.lives():
                raise CommandError(
                    f"{self._asker}: process {pid} has ended", ExitCode.FAILED
                ) from error
            why = " ".join(str(error).split())
            raise CommandError(
                f"{self._asker}: process {pid} cannot be attached to: {why}; "
                f"start it under: {self.target.recorded_command}",
                ExitCode.NOT_POSSIBLE_HERE,
            ) from error

    def _give(self, path: Path) -> None:
        """Let the process's user have it, where that is another one."""
        owner = Path(f"/proc/{self.target.pid}").stat()
        if owner.st_uid != os.geteuid():
            os.chown(path, owner.st_uid, owner.st_gid)

    def _check_seen(self, path: Path) -> None:
        """Raise an error where the process has other files under that name, or may not see it."""
        try:
            is_same = os.path.samefile(path, f"/proc/{self.target.pid}/root{path}")
        except OSError:
            is_same = False
        if not is_same:
            raise CommandError(
                f"{self._asker}: process {self.target.pid} does not see {path} "
                "(is it in a container?): run the doctor where that process runs",
                ExitCode.NOT_POSSIBLE_HERE,
            )


def hold(folder: Path) -> int:
    """Return a descriptor that says, while it is open, that the doctor of this folder lives.

    OSError when another doctor has it open: the kernel closes it however a doctor ends.
    """
    descriptor = os.open(folder / LIVES, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _library(asker: str) -> str:
    for folder in moored.__path__:
        for path in Path(folder).glob("_attach.*.so"):
            return str(path.resolve())
    raise CommandError(
        f"{asker}: this moored was built without what attaches: it needs a 64-bit Linux with glibc",
        ExitCode.NOT_POSSIBLE_HERE,
    )
