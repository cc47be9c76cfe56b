"""moored lab spin: whether a GIL that spins explains what the report saw."""

from __future__ import annotations

import argparse
import os
import platform

from moored.cli.errors import CommandError, ExitCode
from moored_lab.commands import outputs
from moored_lab.report import document, progress, spin_chart, table

HELP = "the server's CPU and latency when the GIL spins before it blocks"

COLUMNS = (
    table.Column("scenario", "scenario", names=True),
    table.Column("mode", "mode", names=True),
    table.Column("spin_us", "spin us", names=True),
    table.Column("process_cpu_percent", "process CPU %", 1, spread=True),
    table.Column("change_points", "change, points", 1, signed=True),
    table.Column("latency_p50_us", "p50 us"),
    table.Column("latency_p99_us", "p99 us"),
    table.Column("delivered", "delivered"),
    table.Column("lost", "lost"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--modes", default="temporary,kept", help="(temporary,kept)")
    parser.add_argument("--rate", type=float, default=5000.0, help="events per second (5000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement (1)")
    parser.add_argument("--repeat", type=int, default=3, help="interleaved rounds (3)")
    parser.add_argument(
        "--spins", metavar="US,...", help="microseconds (0,20,100,1000, or MOORED_SPIN_US)"
    )
    parser.add_argument("--handler-us", type=float, default=10.0, help="handler's work (10)")
    outputs.add_json(parser)
    outputs.add_chart(parser)


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for."""
    from moored_lab.wakeup import spin, wakeup
    from moored_lab.wakeup.options import BadOption, Options, modes_in

    outputs.check(args)
    try:
        spins = spin.SPINS_US
        if args.spins is not None:
            spins = spin.spins_in(args.spins, "--spins")
        elif spin.VARIABLE in os.environ:
            spins = spin.spins_in(os.environ[spin.VARIABLE], spin.VARIABLE)
        base = Options(
            modes=modes_in(args.modes),
            rate=args.rate,
            seconds=args.seconds,
            repeat=args.repeat,
            handler_us=args.handler_us,
        )
        spin.library()
        with progress.bar() as bar:
            rows = spin.run(base, spins, progress=bar)
    except BadOption as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except wakeup.LabMissing as error:
        raise CommandError(str(error), ExitCode.NOT_POSSIBLE_HERE) from error
    except wakeup.LabFailed as error:
        raise CommandError(str(error), ExitCode.FAILED) from error
    described = document.describe(document.command_line(), rows)
    python = platform.python_version()
    title = f"CPython {python}, {args.rate:,.0f} events/s, handler {args.handler_us:g} us"
    try:
        outputs.write(args, described, "spin", spin_chart.draw)
    finally:
        table.show(COLUMNS, rows, f"{title}, medians of {args.repeat} rounds")
        print(f"\n{spin.verdict(rows)}")
    return ExitCode.FINE
