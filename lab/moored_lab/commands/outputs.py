"""What the measuring commands write besides their tables: --json, and a picture in --out."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench import goals
from moored_lab.report import chart, document, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
Command = Callable[[argparse.Namespace], int]


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare --json."""
    parser.add_argument(
        "--json", type=place.place, metavar="PATH", help="write the rows there; - is stdout"
    )


def add_chart(parser: argparse.ArgumentParser) -> None:
    """Declare where the picture goes."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("out"), metavar="DIR", help="of the picture (%(default)s)")
    add("--force", action="store_true", help="replace earlier pictures instead of numbering")
    add("--no-chart", action="store_true", help="draw no picture")


def check(args: argparse.Namespace) -> None:
    """Say before a long run that its results could not be written."""
    try:
        if args.json:
            place.check_writable(args.json)
        if not getattr(args, "no_chart", True):
            chart.require_matplotlib()
            chart.prepare_folder(args.out)
    except place.CannotWrite as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except chart.NoCharts as error:
        raise CommandError(str(error), ExitCode.NOT_POSSIBLE_HERE) from error


def check_rounds(rounds: int) -> None:
    """Refuse what cannot be a number of rounds."""
    if not 1 <= rounds <= 100_000:
        raise CommandError(f"--rounds {rounds} is not possible: give 1 to 100000", ExitCode.USAGE)


def judged(args: argparse.Namespace, found: Sequence[goals.Goal]) -> ExitCode:
    """Return the exit code of a benchmark that has goals."""
    return ExitCode.MISSED if args.strict and not goals.all_met(found) else ExitCode.FINE


def tables_beside_document(run: Command) -> Command:
    """Send a command's tables to stderr when stdout is where --json's document goes."""

    @functools.wraps(run)
    def wrapped(args: argparse.Namespace) -> int:
        if args.json is None or not place.is_stdout(args.json):
            return run(args)
        with redirect_stdout(sys.stderr):
            return run(args)

    return wrapped


@contextmanager
def showing(failed: list[OSError]) -> Iterator[None]:
    """Note in `failed` that stdout fails, so that a long measurement goes on to its document."""
    try:
        yield
    except OSError as error:
        failed.append(error)


def write(
    args: argparse.Namespace,
    described: Document,
    stem: str = "",
    draw: Callable[[Document], Figure] | None = None,
) -> None:
    """Write what was asked for, and say where.

    Commands call it before they show their tables, and show these whatever comes of it: what took
    minutes is lost neither with a full disk nor with a stdout that has no reader any more.
    """
    try:
        if args.json:
            document.write_json(described, args.json)
            if not place.is_stdout(args.json):
                print(f"rows: {args.json}", file=sys.stderr)
        if draw and not args.no_chart:
            name = f"{stem}-python{described['python']}"
            paths = chart.save(draw(described), args.out, name, args.force)
            print(f"picture: {' '.join(map(str, paths))}", file=sys.stderr)
    except place.CannotWrite as error:
        raise CommandError(str(error)) from error
