"""Place: where a result is written: a file as a whole, or what is open already as it is.

A link stays a link, and a device or a pipe what it is. A descriptor of this process (`-`,
/dev/stdout, a link to it, or a file that the shell has made stdout) is written to where it
stands: opening it anew would begin at its first byte, over what is there.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import stat
import sys
from contextlib import suppress
from pathlib import Path

STDOUT, STDERR = 1, 2

_MOST_LINKS = 40
"""As many as the system follows."""


class CannotWrite(Exception):
    """A result cannot be written where the user asked for it; the message says why."""


def place(words: str) -> Path:
    """Return the path that was typed on a command line; `-` is stdout."""
    return Path("/proc/self/fd/1" if words == "-" else words)


def is_stdout(path: Path) -> bool:
    """Tell whether what is written there appears on stdout."""
    return _descriptor(path) == STDOUT


def check_writable(path: Path) -> None:
    """Say before a long run that `path` cannot be written after it."""
    number = _descriptor(path)
    if number is not None:
        return _check_open(path, number)
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise CannotWrite(f"cannot write {path}: it is a link that leads to itself")
    if not target.parent.is_dir():
        folder = target.parent if path.is_symlink() else path.parent
        raise CannotWrite(f"cannot write {path}: there is no directory {folder}; make it first")
    if path.is_dir():
        raise CannotWrite(f"cannot write {path}: it is a directory; name a file")
    if not os.access(path if _stays(path) else target.parent, os.W_OK):
        raise CannotWrite(f"cannot write {path}: no permission to write in {target.parent}")


def write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all: into a neighbour first, then rename.

    What must stay what it is, is written to.
    """
    check_writable(path)
    number = _descriptor(path)
    try:
        if number is not None:
            _write_to(number, content)
        elif _stays(path):
            with path.open("ab" if _owner(path) else "wb") as file:
                file.write(content)
        else:
            _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        if number == STDOUT and isinstance(error, BrokenPipeError):
            raise  # the reader (head, less) has what it wanted
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error


def _replace(target: Path, content: bytes) -> None:
    neighbour = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        neighbour.write_bytes(content)
        os.replace(neighbour, target)
    finally:
        neighbour.unlink(missing_ok=True)


def _write_to(number: int, content: bytes) -> None:
    if number == STDOUT and sys.stdout is not None:
        sys.stdout.flush()
    while content:
        try:
            content = content[os.write(number, content) :]
        except BlockingIOError:  # another process has made the pipe so
            select.select([], [number], [])


def _check_open(path: Path, number: int) -> None:
    try:
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error
    if mode == os.O_RDONLY:
        raise CannotWrite(f"cannot write {path}: it is open for reading")


def _stays(path: Path) -> bool:
    """Tell what is never replaced: no file, or one that has another name or is open elsewhere."""
    try:
        found = path.stat()
    except OSError:
        return False
    return not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or _owner(path) is not None


def _descriptor(path: Path) -> int | None:
    """Return the number, when `path` leads to an open descriptor of this process."""
    owner = _owner(path)
    if owner is not None:
        folder, number = owner
        own = {os.path.realpath(f"/proc/{self}/fd") for self in ("self", "thread-self")}
        return number if folder in own else None
    with suppress(OSError):
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            for number in (STDOUT, STDERR):
                with suppress(OSError):
                    if os.path.samestat(found, os.fstat(number)):
                        return number
    return None


def _owner(path: Path) -> tuple[str, int] | None:
    """Return the folder in /proc and the number, when `path` leads to an open descriptor.

    The links are followed one by one: what follows them all cannot tell the descriptor from the
    file that is open by it.
    """
    at = os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(at)
        folder = os.path.realpath(folder)
        if re.fullmatch(r"/proc/(self|\d+)(/task/\d+)?/fd", folder) and name.isdigit():
            return folder, int(name)
        try:
            at = os.path.join(folder, os.readlink(os.path.join(folder, name)))
        except OSError:
            return None
    return None
