"""Target: a running process as it looks from outside, and whether it can be recorded."""

from __future__ import annotations

import os
import re
import shlex
import struct
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moored.cli.errors import CommandError, ExitCode

from .elf import ElfFile, NotElf

FIRST = (3, 14)
"""The first Python that runs a script for another process."""
PRELOADED, ATTACHED = "libmoored_keep.so", "/moored/_attach."
RECORD_VARIABLE = "MOORED_RUN_RECORD"

_RUNTIME = struct.Struct("<8sQQ")
_COOKIE = b"xdebugpy"
_NAMED = re.compile(r"^(?:lib)?python(3)\.(\d+)(t?)")
_CAPTURE_MAGIC = b"MOOREDOC"


@dataclass(frozen=True)
class Python:
    """A version as in (3, 14), and whether it has a GIL."""

    version: tuple[int, int]
    has_gil: bool = True

    def __str__(self) -> str:
        return "{}.{}".format(*self.version) + ("" if self.has_gil else " without a GIL")


OURS = Python(
    (sys.version_info[0], sys.version_info[1]), not sysconfig.get_config_var("Py_GIL_DISABLED")
)


@dataclass(frozen=True)
class Target:
    """A process at one moment."""

    pid: int
    files: tuple[str, ...]
    """What it has mapped, each once."""
    words: tuple[str, ...]
    """Its command line."""
    variables: dict[str, str]
    """Its environment as it was when the program began."""

    @property
    def command(self) -> str:
        """Its program and arguments as in a shell, without the interpreter."""
        return shlex.join(self._after_interpreter())

    @property
    def recorded_command(self) -> str:
        """What would have it recorded from its start."""
        words = self._after_interpreter()
        how = "" if words != list(self.words) else "--exec "
        return f"moored doctor {how}{shlex.join(words)}"

    def _after_interpreter(self) -> list[str]:
        words = list(self.words)
        is_python = bool(words) and re.match(r"python[\d.t]*$", Path(words[0]).name) is not None
        return words[1:] if is_python and len(words) > 1 else words

    def has(self, part: str) -> bool:
        """Say whether a file with that in its path is mapped."""
        return any(part in file for file in self.files)

    def capture(self) -> Path | None:
        """Return the file that it is recorded in."""
        names = [file for file in self.files if file.endswith((f".{self.pid}", ".capture"))]
        prefix = self.variables.get(RECORD_VARIABLE)
        names += [f"{prefix}.{self.pid}"] if prefix else []
        return next((Path(name) for name in names if _is_capture(Path(name))), None)

    def python(self) -> Python | None:
        """Return the Python that it has in it; None for none that could be found."""
        for file in self.files:
            if file.startswith("/") and (found := python_in(file)):
                return found
        return None

    def refuses(self) -> bool:
        """Say whether it was told to run nothing for others."""
        switch = self.variables.get("PYTHON_DISABLE_REMOTE_DEBUG")
        return bool(switch) or any("disable_remote_debug" in word for word in self.words)


def look(pid: int, asker: str = "doctor") -> Target:
    """Look at a process; an error for one that is not there, or that is not to be looked at."""
    folder = Path(f"/proc/{pid}")
    try:
        maps = (folder / "maps").read_text(errors="surrogateescape").splitlines()
        words = _zero_ended(folder / "cmdline")
        variables = dict(one.split("=", 1) for one in _zero_ended(folder / "environ") if "=" in one)
    except (FileNotFoundError, ProcessLookupError):
        raise CommandError(f"{asker}: there is no process {pid}", ExitCode.USAGE) from None
    except OSError as error:
        raise CommandError(
            f"{asker}: process {pid} cannot be looked at: {error.strerror}; be its user, or root",
            ExitCode.NOT_POSSIBLE_HERE,
        ) from error
    files = dict.fromkeys(line.split(None, 5)[5] for line in maps if line.count("/"))
    if not words and not files:
        raise CommandError(
            f"{asker}: process {pid} has no program any more, or is the kernel's",
            ExitCode.NOT_POSSIBLE_HERE,
        )
    return Target(pid, tuple(files), tuple(words), variables)


def check(target: Target, asker: str = "doctor") -> None:
    """Raise the one line that says why it cannot be attached to, if it cannot."""
    pid, python = target.pid, target.python()
    start = f"start it under: {target.recorded_command}"
    why = ""
    if target.has(PRELOADED):
        if target.variables.get(RECORD_VARIABLE):
            why = f"is recorded already; look on with: moored top {pid}"
        else:
            kept = target.recorded_command.replace("moored doctor", "moored doctor --kept", 1)
            why = f"runs under moored run, which would be in the way; start it under: {kept}"
    elif python is None:
        why = "has no Python in it that could be found"
    elif python.version < FIRST:
        why = f"runs Python {python}, and attaching needs 3.14 or later; {start}"
    elif python != OURS:
        name = "python{}.{}".format(*python.version) + ("" if python.has_gil else "t")
        why = (
            f"runs Python {python}, and this doctor Python {OURS}; "
            f"use that one's: {name} -m moored doctor attach {pid}"
        )
    elif target.refuses():
        why = f"was told by disable_remote_debug to run nothing for others; {start}"
    if why:
        raise CommandError(f"{asker}: process {pid} {why}", ExitCode.NOT_POSSIBLE_HERE)


def python_in(path: str) -> Python | None:
    """Return the Python that a program or a library contains, by what debuggers read there.

    Before 3.13 nothing is for debuggers: then the file's name is believed.
    """
    named = _NAMED.match(os.path.basename(path))
    try:
        with ElfFile(path) as file:
            section = file.section(".PyRuntime")
            if section is None:
                return None
            cookie, version, without_gil = _RUNTIME.unpack_from(file.map, section.offset)
    except (NotElf, struct.error):
        return None
    if cookie == _COOKIE:
        return Python((version >> 24 & 0xFF, version >> 16 & 0xFF), not without_gil)
    return Python((3, int(named[2]) if named else 12), not (named and named[3]))


def _is_capture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_CAPTURE_MAGIC)) == _CAPTURE_MAGIC
    except OSError:
        return False


def _zero_ended(path: Path) -> Sequence[str]:
    raw = path.read_bytes().decode(errors="surrogateescape")
    return raw.rstrip("\0").split("\0") if raw else []
