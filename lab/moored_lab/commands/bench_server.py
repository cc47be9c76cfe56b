"""moored bench server: requests per second of a server of another project, unmodified."""

from __future__ import annotations

import argparse
import sys

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench import server
from moored_lab.bench.interpreter import look_at
from moored_lab.commands import outputs
from moored_lab.report import document, progress, server_chart, table

HELP = "requests per second of an unmodified web server (Robyn), stock and under moored run"

COLUMNS = (
    table.Column("way", "way", names=True),
    table.Column("requests_per_s", "requests/s"),
    table.Column("requests_per_s_min", "min"),
    table.Column("requests_per_s_max", "max"),
    table.Column("ratio", "x stock", 2),
    table.Column("ratio_p10", "10 %", 2),
    table.Column("ratio_p90", "90 %", 2),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    default = server.Plan()
    add = parser.add_argument
    add("--rounds", type=int, default=default.rounds, help="interleaved rounds (%(default)s)")
    add("--seconds", type=int, default=default.seconds, help="of load in a turn (%(default)s)")
    outputs.add_json(parser)
    outputs.add_chart(parser)


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for."""
    outputs.check_rounds(args.rounds)
    if not 1 <= args.seconds <= 60:
        raise CommandError(f"--seconds {args.seconds}: give 1 to 60", ExitCode.USAGE)
    outputs.check(args)
    if lacks := server.missing():
        raise CommandError(f"bench server: {lacks}", ExitCode.NOT_POSSIBLE_HERE)
    plan = server.Plan(args.rounds, args.seconds)
    interpreter = look_at(sys.executable)
    try:
        with progress.bar() as bar:
            rows = server.measure(interpreter, plan, bar)
    except server.CannotServe as error:
        raise CommandError(f"bench server: {error}") from error
    title = server.title(interpreter.version, plan)
    described = document.describe(document.command_line(), rows)
    try:
        outputs.write(args, described | {"title": title}, "server", server_chart.draw)
    finally:
        table.show(COLUMNS, rows, title)
    return ExitCode.FINE
