"""moored run: the extensions' threads keep their thread states, with no code changed.

The work is done by the native launcher, which becomes the program at once. This module explains the
command, and finds the launcher when the command is started as `python -m moored run`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from moored._places import installed

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
    add("--stats", action="store_true", help="print on stderr at exit what was kept and saved")
    add("--json", metavar="PATH", help="write the same there")
    add("--exec", metavar="PROGRAM", help="run a program that has Python in it")
    add("target", nargs="*", metavar="TARGET", help="a script, -m MODULE or -c CODE")


def pass_on(words: Sequence[str]) -> NoReturn:
    """Become the launcher, with the words behind `moored run`."""
    try:
        launcher = installed("bin/moored")
    except FileNotFoundError as error:
        raise CommandError(
            "run: it needs a 64-bit Linux with glibc, and moored was built without it; "
            "call moored.install() in the program instead",
            ExitCode.NOT_POSSIBLE_HERE,
        ) from error
    os.execv(launcher, ["moored", "run", f"--with-python={sys.executable}", *words])


def run(args: argparse.Namespace) -> int:
    """Never reached: the launcher reads the arguments."""
    raise AssertionError(args)
