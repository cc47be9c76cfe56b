"""What the measuring commands write besides their tables: --json, and a picture in --out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moored.cli.errors import FAILED, NOT_POSSIBLE_HERE, USAGE, CommandError
from moored.report import chart, document, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = Mapping[str, Any]


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
        raise CommandError(str(error), USAGE) from error
    except chart.NoCharts as error:
        raise CommandError(str(error), NOT_POSSIBLE_HERE) from error


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
        raise CommandError(str(error), FAILED) from error
