"""`moored lab wakeup`: the ThreadWakeup experiment, as a table and a picture."""

from __future__ import annotations

import argparse
import sys

from moored.cli.errors import CommandError, ExitCode
from moored_lab.commands import outputs
from moored_lab.report import wakeup_chart
from moored_lab.report.document import command_line
from moored_lab.report.progress import bar
from moored_lab.report.table import Column, show
from moored_lab.wakeup.options import (
    BUSY_HANDLER_US,
    BUSY_MODES,
    BUSY_RATE,
    USUAL_MODES,
    BadOption,
    Options,
    modes_in,
)
from moored_lab.wakeup.wakeup import LabFailed, LabMissing, Result
from moored_lab.wakeup.wakeup import run as run_experiment

HELP = "switch the ways into Python in a running IO server, and show what each one costs"

OWN_WORK = Column("own_work_per_s", "own work/s")
COLUMNS = (
    Column("mode", "mode"),
    Column("process_cpu_percent", "process %", 1, spread=True),
    Column("main_cpu_percent", "main %", 1),
    Column("others_cpu_percent", "others %", 1),
    Column("change_points", "change pts", 1, signed=True, spread=True),
    Column("delivered", "delivered"),
    Column("lost", "lost"),
    Column("refused", "refused"),
    Column("latency_p50_us", "p50 us"),
    Column("latency_p99_us", "p99 us"),
    OWN_WORK,
    Column("context_switches_per_s", "switches/s"),
    Column("page_faults_per_s", "faults/s"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; their defaults are those of Options."""
    default = Options()
    add = parser.add_argument
    usual = f"{','.join(USUAL_MODES)}; with --main-busy {','.join(BUSY_MODES)}"
    add("--modes", help=f"comma-separated, in order (default: {usual})")
    add(
        "--rate",
        type=float,
        help=f"events per second ({default.rate:g}; with --main-busy {BUSY_RATE:g})",
    )
    add("--seconds", type=float, default=default.seconds, help="a mode and round (%(default)g)")
    add("--repeat", type=int, default=default.repeat, help="interleaved rounds (%(default)s)")
    add("--threads", type=int, default=default.threads, help="IO threads (%(default)s)")
    add(
        "--connections", type=int, default=default.connections, help="from the sender (%(default)s)"
    )
    add(
        "--handler-us",
        type=float,
        help="the handler's work (default: main at 40 %% in poll15; with --main-busy "
        f"{BUSY_HANDLER_US:g})",
    )
    add(
        "--main-busy", type=float, default=default.main_busy, help="main's own work, %% of its time"
    )
    add("--seed", type=int, default=default.seed, help="of the arrival times (%(default)s)")
    add("--python", default=default.python, help="run the server on this interpreter")
    add("--no-pin", action="store_true", help="let server and sender run on any CPU")
    outputs.add_json(parser)
    outputs.add_chart(parser)


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Measure, then show: everything that can be refused is refused before the measurement."""
    try:
        options = _options(args)
        outputs.check(args)
        with bar() as progress:
            result = run_experiment(options, progress)
    except BadOption as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except LabMissing as error:
        raise CommandError(str(error), ExitCode.NOT_POSSIBLE_HERE) from error
    except LabFailed as error:
        raise CommandError(str(error)) from error
    try:
        document = result.to_json(command_line())
        draw = wakeup_chart.draw if document["samples"] else None
        outputs.write(args, document, "wakeup", draw)
    finally:
        _show(result)
    if result.imbalance:
        raise CommandError(result.imbalance, ExitCode.FAILED)
    if result.interrupted:
        print("moored: interrupted; shown is what was measured so far", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return ExitCode.FINE


def _options(args: argparse.Namespace) -> Options:
    usual = BUSY_MODES if args.main_busy else USUAL_MODES
    rate, handler_us = args.rate, args.handler_us
    if rate is None:
        rate = BUSY_RATE if args.main_busy else Options.rate
    if handler_us is None and args.main_busy:
        handler_us = BUSY_HANDLER_US
    return Options(
        modes=modes_in(args.modes) if args.modes is not None else usual,
        rate=rate,
        seconds=args.seconds,
        threads=args.threads,
        handler_us=handler_us,
        main_busy=args.main_busy,
        repeat=args.repeat,
        connections=args.connections,
        seed=args.seed,
        python=args.python,
        pin=not args.no_pin,
    )


def _show(result: Result) -> None:
    for line in result.setup:
        print(line)
    print()
    show(
        [each for each in COLUMNS if each is not OWN_WORK or result.options.main_busy], result.rows
    )
    print()
    for sentence in result.findings:
        print(sentence)
    print(_books(result))


def _books(result: Result) -> str:
    counted = {key: int(result.stats.get(key, 0)) for key in ("delivered", "lost", "refused")}
    parts = " + ".join(f"{count:,} {what}" for what, count in counted.items())
    equal = "!=" if result.imbalance else "="
    return f"Events: {parts} {equal} {result.sent:,} sent."
