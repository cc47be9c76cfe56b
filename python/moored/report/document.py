"""Document: the JSON object that every measuring command writes."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class CannotWrite(Exception):
    """A result cannot be written where the user asked for it; the message says why."""


def describe(command: str, rows: Sequence[Row], python: str | None = None) -> dict[str, Any]:
    """Build the common object; `python` names the measured interpreter if it is not this one."""
    return {
        "moored": moored_version(),
        "python": python or platform.python_version(),
        "machine": machine(),
        "command": command,
        "rows": list(rows),
    }


def moored_version() -> str:
    """Return the version of the installed package."""
    try:
        return metadata.version("moored")
    except metadata.PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, Any]:
    """Describe the machine as far as it explains a number; no host name, no path."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown"


def check_writable(path: Path) -> None:
    """Say before a long run that `path` cannot be written after it."""
    folder = path.parent
    if not folder.is_dir():
        raise CannotWrite(f"cannot write {path}: there is no directory {folder}; make it first")
    if path.is_dir():
        raise CannotWrite(f"cannot write {path}: it is a directory; name a file")
    if not os.access(path if _is_device(path) else folder, os.W_OK):
        raise CannotWrite(f"cannot write {path}: no permission to write in {folder}")


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Write the object as a whole or not at all."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, text.encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all: into a neighbour first, then rename.

    What is no file, as /dev/stdout or a pipe, is written to, not replaced.
    """
    check_writable(path)
    target = path
    if not _is_device(path):
        target = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        target.write_bytes(content)
        if target != path:
            os.replace(target, path)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error
    finally:
        if target != path:
            target.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()


def command_line(program: str = "moored") -> str:
    """Return the command as typed, with the program's plain name."""
    return shlex.join([program, *sys.argv[1:]])
