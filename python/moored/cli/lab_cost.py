"""moored lab cost: where the price of a temporary thread state comes from."""

from __future__ import annotations

import argparse
import importlib.util
import platform
from pathlib import Path

from moored.cli.errors import NOT_POSSIBLE_HERE, USAGE, CommandError
from moored.report import document, progress, table

HELP = "where the price of a temporary thread state comes from: TLS, malloc, the GIL, or what?"

COLUMNS = (
    table.Column("name", "what"),
    table.Column("ns_median", "median ns", 1),
    table.Column("ns_min", "min ns", 1),
    table.Column("ns_p10", "10 %", 1),
    table.Column("ns_p90", "90 %", 1),
    table.Column("page_faults", "page faults", 2),
)
SHARE_COLUMNS = (
    table.Column("part", "part of a temporary state + Python frame"),
    table.Column("ns_median", "ns", 1),
    table.Column("percent", "share %", 1),
    table.Column("note", "note"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--rounds", type=int, default=100, help="interleaved rounds (100)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows as JSON")
    parser.add_argument("--out", type=Path, metavar="DIR", help="draw cost.png and cost.svg there")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for."""
    check_rounds(args.rounds)
    check_outputs(args.json, args.out)
    try:
        from moored.lab import cost
    except ImportError as error:
        raise not_built(error) from error
    with progress.bar() as bar:
        try:
            result = cost.run(args.rounds, bar)
        except ImportError as error:
            raise not_built(error) from error
    rows = result.rows()
    measured = [row for row in rows if "share" not in row]
    shares = [
        {
            **row,
            "part": row["name"].removeprefix("share: "),
            "percent": None if row["share"] is None else 100 * row["share"],
        }
        for row in rows
        if "share" in row
    ]
    python = platform.python_version()
    table.show(COLUMNS, measured, f"CPython {python}, per operation, {args.rounds} rounds")
    print()
    table.show(SHARE_COLUMNS, shares)
    print(f"\n{result.verdict()}")
    if args.json:
        document.write_json(document.describe(document.command_line(), rows), args.json)
    if args.out:
        from moored.lab import cost_chart

        for path in cost_chart.draw(result, python, args.out):
            print(f"wrote {path}")
    return 0


def check_rounds(rounds: int) -> None:
    """Refuse what cannot be a number of rounds."""
    if not 1 <= rounds <= 100_000:
        raise CommandError(f"--rounds {rounds} is not possible: give 1 to 100000", USAGE)


def check_outputs(json: Path | None, out: Path | None) -> None:
    """Say before a long run that its results could not be written."""
    try:
        if json:
            document.check_writable(json)
        if out:
            out.mkdir(parents=True, exist_ok=True)
            document.check_writable(out / "chart.png")
    except document.CannotWrite as error:
        raise CommandError(str(error), USAGE) from error
    except OSError as error:
        raise CommandError(f"cannot make the directory {out}: {error.strerror}", USAGE) from error
    if out and importlib.util.find_spec("matplotlib") is None:
        raise CommandError(
            "no chart without matplotlib: pip install 'moored[tools]', or leave --out away",
            NOT_POSSIBLE_HERE,
        )


def not_built(error: ImportError) -> CommandError:
    """Return the error for a moored whose native lab module is not there."""
    return CommandError(
        f"the lab is not built for this interpreter ({error}): pip install moored with its lab",
        NOT_POSSIBLE_HERE,
    )
