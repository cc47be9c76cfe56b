"""What the benchmarks share that build extensions: their interpreters, goals and documents."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench.goals import Goal
from moored_lab.bench.interpreter import Interpreter, NoSuchPython, look_at
from moored_lab.bench.workshop import CannotBuild, CannotStart, default_cache
from moored_lab.commands import outputs
from moored_lab.report import document

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser, built: str) -> None:
    """Declare the arguments that all of them have; `built` is what goes into the cache."""
    add = parser.add_argument
    add(
        "--python",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="interpreters to measure, each with moored installed in it (default: this one)",
    )
    add(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help=f"where the {built} are built, and kept for the next time (%(default)s)",
    )
    outputs.add_json(parser)
    add("--strict", action="store_true", help="exit 4 when a goal is missed")


def named(option: str, names: str, what: str, known: Iterable[str]) -> list[str]:
    """Read a list of names, each of which must be known."""
    known = list(known)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise CommandError(
            f"{option} {names}: there is no {what} {unknown[0] if unknown else ''!r}; "
            f"there are: {', '.join(known)}",
            ExitCode.USAGE,
        )
    return list(dict.fromkeys(wanted))


def compare(
    args: argparse.Namespace,
    name: str,
    measure: Callable[[Interpreter], tuple[list[Row], list[Goal]]],
    show: Callable[[Interpreter, Sequence[Row]], None],
) -> int:
    """Measure every interpreter, show each one's tables, and judge by the goals."""
    rows: list[Row] = []
    found: list[Goal] = []
    judged: list[Row] = []
    failed: list[OSError] = []
    try:
        interpreters = [look_at(python) for python in args.python or [sys.executable]]
        for interpreter in interpreters:
            own, judgement = measure(interpreter)
            with outputs.showing(failed):
                show(interpreter, own)
                say(own, judgement)
            rows += own
            found += judgement
            judged += [goal.as_json() | {"python": interpreter.version} for goal in judgement]
    except NoSuchPython as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except (CannotStart, CannotBuild) as error:
        raise CommandError(f"{name}: {error}", ExitCode.NOT_POSSIBLE_HERE) from error
    versions = ", ".join(one.version for one in interpreters)
    described = document.describe(document.command_line(), rows, versions)
    outputs.write(args, described | {"goals": judged})
    if failed:
        raise failed[0]
    return outputs.judged(args, found)


def say(rows: Sequence[Row], judgement: Sequence[Goal]) -> None:
    """Print which goals were met, and how many rows could not be measured."""
    for goal in judgement:
        print(goal)
    refused = sum("not measured" in row.get("note", "") for row in rows)
    if refused:
        print(f"not judged: {refused} that could not be measured; the notes say why")
    print()
