"""moored run: the extensions' threads keep their thread states, with no code changed.

The work is done by the native launcher, which becomes the program at once. This module explains the
command, and finds the launcher when the command is started as `python -m moored run`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import moored

from .errors import CommandError, ExitCode

HELP = "run a program whose native threads keep their thread states, unchanged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for --help; the launcher is what reads them."""
    parser.usage = (
        "moored run [options] SCRIPT [ARGUMENT ...]\n"
        "       moored run [options] -m MODULE | -c CODE [ARGUMENT ...]\n"
        "       moored run [options] --exec PROGRAM [ARGUMENT ...]"
    )
    parser.epilog = (
        "Python's own options (-u, -X dev, -W error, ...) may stand before the target. "
        "The program keeps its exit code. Otherwise: 2 usage, 3 not possible here, "
        "126 the program cannot be run, 127 there is no such program."
    )
    add = parser.add_argument
    add(
        "--fresh",
        action="store_true",
        help="each callback gets fresh thread-locals, as without moored; only the cache is used",
    )
    add(
        "--cache-only",
        action="store_true",
        help="keep no states, only make them cheap: where the dynamic loader cannot do more",
    )
    add(
        "--no-children",
        action="store_true",
        help="the processes that the program starts do not inherit this",
    )
    add(
        "--urgent",
        metavar="BUDGET",
        nargs="?",
        help="native threads get the GIL from a busy thread in microseconds, which loses at most "
        "this share of its time (10%%)",
    )
    add("--stats", action="store_true", help="print on stderr at exit what was kept and saved")
    add("--json", metavar="PATH", help="write the same there")
    add("--exec", metavar="PROGRAM", help="run a program that has Python in it")
    add("target", nargs="*", metavar="TARGET", help="a script, -m MODULE or -c CODE")


def pass_on(words: Sequence[str]) -> NoReturn:
    """Become the launcher, with the words behind `moored run`."""
    launcher, *rest = command(*words)
    os.execv(launcher, ["moored", *rest])


def command(*words: str) -> list[str]:
    """Return the launcher's command for these words behind `moored run`."""
    launcher, libraries = _installed()
    if launcher is None or libraries is None:
        raise CommandError(
            "run: it needs a 64-bit Linux with glibc, and moored was built without it; "
            "call moored.install() in the program instead",
            ExitCode.NOT_POSSIBLE_HERE,
        )
    known = (f"--with-python={sys.executable}", f"--with-libraries={libraries}")
    return [str(launcher), "run", *known, *words]


def _installed() -> tuple[Path | None, Path | None]:
    """Return the native launcher, which is installed as the command, and the libraries' folder."""
    installed = metadata.files("moored") or ()
    launchers = (Path(str(file.locate())) for file in installed if file.name == "moored")
    # An editable install has the package in two folders: the sources, and what was built.
    folders = (Path(folder, "lib").resolve() for folder in moored.__path__)
    return (
        next((one for one in launchers if _is_native(one)), None),
        next((one for one in folders if one.is_dir()), None),
    )


def _is_native(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
    return False


def run(args: argparse.Namespace) -> int:
    """Never reached: the launcher reads the arguments."""
    raise AssertionError(args)
