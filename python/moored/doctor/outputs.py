"""Outputs: where a report goes: stdout, a file as a whole, or what is there already and stays."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from moored.cli.errors import CommandError

STDOUT = 1


def is_stdout(place: str) -> bool:
    """Tell whether what is written there appears on stdout; `-` is stdout."""
    if place == "-":
        return True
    with suppress(OSError):
        return os.path.samestat(os.stat(place), os.fstat(STDOUT))
    return False


def write(place: str, text: str) -> None:
    """Write to stdout or a file; a link, a device and a file of two names stay what they are."""
    if is_stdout(place):
        sys.stdout.write(text)
        return
    content = text.encode(errors="backslashreplace")
    try:
        if _stays(place):
            with open(place, "wb") as file:
                file.write(content)
        else:
            _replace(os.path.realpath(place), content)
    except OSError as error:
        raise CommandError(f"cannot write {place}: {error.strerror}") from error


def _stays(place: str) -> bool:
    try:
        found = os.stat(place)
    except OSError:
        return False
    return not stat.S_ISREG(found.st_mode) or found.st_nlink > 1


def _replace(target: str, content: bytes) -> None:
    """Write a neighbour, and give it the name when it is whole."""
    folder, name = os.path.split(target)
    neighbour = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        with open(neighbour, "wb") as file:
            file.write(content)
        os.replace(neighbour, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(neighbour)
