"""Interpreter: the measured Python, and what must be known of it before anything is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ANSWER_S = 60.0

# The folder that one stands in must not be where moored is found.
QUESTIONS = """
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
import json, platform, sysconfig
answers = {
    "executable": sys.executable,
    "version": platform.python_version(),
    "minor": sys.version_info[1],
    "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
    "abi": sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag,
    "include": sysconfig.get_path("include"),
    "scripts": sysconfig.get_path("scripts"),
}
try:
    import moored
    answers["moored"] = moored.__version__
except ImportError as error:
    answers["moored"], answers["why"] = "", str(error)
print(json.dumps(answers))
"""


class NoSuchPython(Exception):
    """What was named is not a Python that can be measured; the message says what to do."""


@dataclass(frozen=True)
class Interpreter:
    """A Python with moored installed."""

    executable: Path
    version: str
    minor: int
    gil: bool
    abi: str
    include: Path
    scripts: Path
    moored: str

    @property
    def run_command(self) -> list[str]:
        """What a user of this Python types for `moored run`."""
        launcher = self.scripts / "moored"
        if launcher.exists():
            return [str(launcher), "run"]
        return [str(self.executable), "-m", "moored", "run"]


def look_at(python: str = sys.executable) -> Interpreter:
    """Ask a Python about itself."""
    found = shutil.which(python)
    if found is None:
        raise NoSuchPython(f"--python {python}: there is no such program; name an interpreter")
    try:
        done = subprocess.run(
            [found, "-c", QUESTIONS],
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        answers = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise NoSuchPython(
            f"--python {python}: it does not answer as a Python does; name an interpreter"
        ) from error
    if not answers["moored"]:
        raise NoSuchPython(
            f"--python {python}: moored cannot be imported there ({answers['why']}); "
            f"in a checkout of moored: {found} -m pip install ."
        )
    return Interpreter(
        # Not resolved: a venv's interpreter is known by its link.
        executable=Path(os.path.abspath(answers["executable"])),
        version=answers["version"],
        minor=answers["minor"],
        gil=answers["gil"],
        abi=answers["abi"],
        include=Path(answers["include"]),
        scripts=Path(answers["scripts"]),
        moored=answers["moored"],
    )
