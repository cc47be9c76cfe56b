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

from moored_lab.report import place

Row = dict[str, Any]


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


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Write the object to its place: as a whole or not at all, where that can be had."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    place.write(path, text.encode(errors="backslashreplace"))


def command_line(program: str = "moored") -> str:
    """Return the command as typed, with the program's plain name."""
    return shlex.join([program, *sys.argv[1:]])
