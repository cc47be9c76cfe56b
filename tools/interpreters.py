"""Finds every CPython from 3.10 on: on the PATH, in /usr/bin, in pyenv, and in the sid folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 10)
SERIES = [f"3.{minor}" for minor in range(10, 16)]
NAMES = [f"python{series}{build}" for series in SERIES for build in ("t", "")]
CHECKOUT = Path(__file__).resolve().parent.parent
INSIDE = CHECKOUT / "tools" / "inside.sh"

PROBE = """
import json, os, platform, sys, sysconfig
include = sysconfig.get_path("include")
folder = sysconfig.get_config_var("LIBDIR") or ""
names = (sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LDLIBRARY"))
def can(module):
    try: __import__(module)
    except ImportError: return False
    return True
print(json.dumps({
    "implementation": platform.python_implementation(),
    "version": platform.python_version(),
    "executable": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
    "home": sys.base_prefix,
    "headers": os.path.exists(os.path.join(include, "Python.h")),
    "library": any(n and ".so" in n and os.path.exists(os.path.join(folder, n)) for n in names),
    "venv": can("venv") and can("ensurepip"),
    "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """One interpreter: what it can do, and the system folder that it lives in (none: this one)."""

    version: str
    executable: str
    home: str
    headers: bool
    library: bool
    venv: bool
    gil: bool
    root: Path | None = None

    @property
    def name(self) -> str:
        """Its short name in tables and folder names, unique among those found."""
        version = self.version if self.gil else f"{self.version}t"
        place = "sid" if self.root else "system" if self.home == "/usr" else ""
        return f"{version}-{place}" if place else version

    @property
    def series(self) -> str:
        """The version without its patch level, as in 3.12."""
        return ".".join(self.version.split(".")[:2])

    @property
    def unusable(self) -> str:
        """Why nothing can be built for it; empty when it can."""
        if not self.headers:
            return f"no Python.h; on Debian: apt-get install python{self.series}-dev"
        if not self.venv:
            return f"no venv module; on Debian: apt-get install python{self.series}-venv"
        return ""

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line that runs these words in the interpreter's own system."""
        inside = ["sh", str(INSIDE), str(self.root), str(CHECKOUT)] if self.root else []
        return inside + [str(word) for word in words]


def probe(executable: str, root: Path | None = None) -> Interpreter | None:
    """Ask one executable what it is; None when it is no CPython that we support."""
    inside = ["chroot", str(root)] if root else []
    try:
        answer = subprocess.run(
            [*inside, executable, "-I", "-c", PROBE], capture_output=True, text=True, timeout=300
        )
        facts = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    release = tuple(int(part) for part in facts["version"].split(".")[:2])
    if facts.pop("implementation") != "CPython" or release < OLDEST:
        return None
    return Interpreter(**facts, root=root)


def sid_folder() -> Path | None:
    """Return the Debian sid that `make sid` made, or the one that MOORED_SID names."""
    folder = Path(os.environ.get("MOORED_SID") or CHECKOUT / ".sid")
    return folder if (folder / "usr" / "bin").is_dir() and os.geteuid() == 0 else None


def candidates() -> list[tuple[str, Path | None]]:
    """Every executable worth asking, the default one first."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found: list[tuple[str, Path | None]] = [(shutil.which("python3") or sys.executable, None)]
    found += [(str(path), None) for path in sorted(pyenv.glob("3.*/bin/python"))]
    found += [(f"/usr/bin/{name}", None) for name in NAMES]
    found += [(path, None) for name in NAMES if (path := shutil.which(name))]
    if sid := sid_folder():
        found += [(f"/usr/bin/{name}", sid) for name in NAMES]
    return [
        (path, root) for path, root in found if root is None or (root / path.lstrip("/")).exists()
    ]


def find() -> list[Interpreter]:
    """All interpreters, each once, the default python3 first and then by version."""
    # One that is installed under two names is one: python3.14 and python3.14t.
    found: dict[tuple[str, str, bool, Path | None], Interpreter] = {}
    for path, root in candidates():
        interpreter = probe(path, root)
        if interpreter:
            which = (interpreter.home, interpreter.version, interpreter.gil, root)
            found.setdefault(which, interpreter)
    default, others = list(found.values())[:1], list(found.values())[1:]

    def by_version(interpreter: Interpreter) -> list[int]:
        return [int("".join(filter(str.isdigit, p)) or 0) for p in interpreter.version.split(".")]

    return default + sorted(others, key=by_version)


def missing(found: list[Interpreter]) -> list[str]:
    """Name the series of which no interpreter was found."""
    return [series for series in SERIES if series not in {one.series for one in found if one.gil}]


def main() -> int:
    """Print what was found, and what was not."""
    found = find()
    for one in found:
        note = one.unusable or ("" if one.library else "no shared libpython: no embedding tests")
        place = f"{one.root}:{one.executable}" if one.root else one.executable
        print(f"{one.name:14} {place}{'  (' + note + ')' if note else ''}")
    if missing(found):
        print(f"not found: {', '.join(missing(found))} (`make sid` brings 3.13 and later)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
