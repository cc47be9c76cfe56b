"""What a hazard is, how its two scripts are run, and how an outcome is put into words."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.limits import HANG_S

# How long a script says nothing until it is said to hang: where it is known to, and where that
# would be a surprise. And how long it waits itself for what is known not to come.
HANG_SECONDS, SURPRISE_SECONDS, VAIN_SECONDS = 3, HANG_S - 60, 2
EXIT_CODE_OF_A_HANG = 77

Version = tuple[int, ...]
# What is seen from which version on; None where it is allowed to vary.
Since = Mapping[Version, "str | None"]
ALL: Version = (3, 10)

# `way` is how native threads enter: "stock" or "moored".
PRELUDE = """
import os, resource, sys, threading, warnings
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
warnings.simplefilter("ignore")  # 3.12 and later warn of any fork with threads
import hazard_threads as native
from hazard_threads import say
way = {way!r}
if way == "moored":
    native.open()  # as an extension does when it is imported
class Late:
    '''Does something while the interpreter is finalising: when the module's globals go.'''
    def __init__(self, act):
        self.act = act
    def __del__(self):
        self.act()
"""
# Python's memory is overwritten when it is freed, so that a dangling pointer shows.
OVERWRITE_FREED = {"PYTHONMALLOC": "debug"}


HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")


def everywhere() -> str:
    return ""


def only_with_gil() -> str:
    return "" if HAS_GIL else "only builds with the GIL have it"


def only_without_gil() -> str:
    return "only builds without the GIL have it, and it is not reproduced"


def from_version(version: Version, why: str) -> Callable[[], str]:
    """Run a hazard from this version on."""
    return lambda: "" if sys.version_info >= version else why


@dataclass(frozen=True)
class Hazard:
    """One hazard: a script that meets it without moored, one that meets it with moored.

    A script says, by `say`, what it sees. What must be seen is compared exactly.
    """

    number: str
    name: str
    title: str
    stock: str = ""
    moored: str = ""
    must_show: str | Since = ""
    stock_shows: str | Since = field(default_factory=lambda: {ALL: None})
    evidence: tuple[str, ...] = ()
    # Why it is not run here; empty when it is.
    not_run: Callable[[], str] = everywhere
    environment: Mapping[str, str] = field(default_factory=dict)
    # How the scripts are started, when not by the interpreter alone.
    stock_preload: bool = False
    under_moored_run: bool = False

    @property
    def identity(self) -> str:
        return f"{self.number}-{self.name}"


def here(seen: str | Since) -> str | None:
    """Return what must be seen with this version; None when it may vary."""
    if isinstance(seen, str):
        return seen
    return seen[max(since for since in seen if since <= sys.version_info[:3])]


@dataclass(frozen=True)
class Child:
    """Runs scripts in child processes that find the extension."""

    folder: Path

    def see(self, hazard: Hazard, way: str) -> str:
        """Run one of a hazard's scripts, and put into words what was seen."""
        script = PRELUDE.format(way=way)
        words = [sys.executable]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), **hazard.environment}
        if way == "stock":
            shows = here(hazard.stock_shows) or ""
            hangs = "hangs" in shows.split("; ")
            script += f"native.hang_after({HANG_SECONDS if hangs else SURPRISE_SECONDS})\n"
            if re.search("hangs|held for ever", shows):
                script += f"native.wait_in_vain_for({VAIN_SECONDS})\n"
            if hazard.stock_preload:
                environment["LD_PRELOAD"] = str(self.folder / "hazard_preload.so")
        elif hazard.under_moored_run:
            words += ["-m", "moored", "run"]
        script += textwrap.dedent(hazard.stock if way == "stock" else hazard.moored)
        # A session of its own, so that a script out of time is ended with its forked child.
        with subprocess.Popen(
            [*words, "-c", script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=HANG_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                return words_for(EXIT_CODE_OF_A_HANG, out, err)
        return words_for(process.returncode, out, err)


def words_for(code: int, out: str, err: str) -> str:
    """Put into words what a script said and how its process ended; exit code 0 needs none."""
    seen = out.split("\n")[:-1]
    if fatal := re.search(r"^Fatal Python error: (.*)$", err, re.MULTILINE):
        seen.append(f"fatal error: {fatal[1]}")
    elif "terminate called" in err:
        seen.append("std::terminate")
    elif raised := re.search(r"^(\w+(?:Error|Exception)\b.*)\Z", err.strip(), re.MULTILINE):
        seen.append(raised[1])
    if code == EXIT_CODE_OF_A_HANG:
        seen.append("hangs")
    elif code < 0:
        seen.append(f"dies by {signal.Signals(-code).name}")
    elif code > 0:
        seen.append(f"exit code {code}")
    return "; ".join(seen)


def write_record(hazard: Hazard, **seen: str) -> None:
    """Leave what was seen in the folder that MOORED_HAZARDS names, if it does."""
    target = os.environ.get("MOORED_HAZARDS")
    if not target:
        return
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "number": hazard.number,
        "name": hazard.name,
        "title": hazard.title,
        "evidence": list(hazard.evidence),
        "python": platform.python_version(),
        **seen,
    }
    path = folder / f"{hazard.identity}-{platform.python_version()}.json"
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    unfinished.replace(path)
