"""`moored lab wakeup`: the ThreadWakeup experiment, as a table and a picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from moored.cli.errors import FAILED, NOT_POSSIBLE_HERE, USAGE, CommandError
from moored.lab.options import BUSY_MODES, USUAL_MODES, BadOption, Options, modes_in
from moored.lab.wakeup import LabFailed, LabMissing, Result
from moored.lab.wakeup import run as run_experiment
from moored.report import chart, place, wakeup_chart
from moored.report.document import command_line, write_json
from moored.report.place import CannotWrite
from moored.report.progress import bar
from moored.report.table import Column, show

HELP = "switch the ways into Python in a running IO server, and show what each one costs"

INTERRUPTED = 130

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
    Column("context_switches_per_s", "switches/s"),
    Column("page_faults_per_s", "faults/s"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; their defaults are those of Options."""
    default = Options()
    add = parser.add_argument
    usual = f"{','.join(USUAL_MODES)}; with --main-busy {','.join(BUSY_MODES)}"
    add("--modes", help=f"comma-separated, in order (default: {usual})")
    add("--rate", type=float, default=default.rate, help="events per second (%(default)g)")
    add("--seconds", type=float, default=default.seconds, help="a mode and round (%(default)g)")
    add("--repeat", type=int, default=default.repeat, help="interleaved rounds (%(default)s)")
    add("--threads", type=int, default=default.threads, help="IO threads (%(default)s)")
    add(
        "--connections", type=int, default=default.connections, help="from the sender (%(default)s)"
    )
    add("--handler-us", type=float, help="the handler's work (default: main at 40 %% in poll15)")
    add(
        "--main-busy", type=float, default=default.main_busy, help="main's own work, %% of its time"
    )
    add("--seed", type=int, default=default.seed, help="of the arrival times (%(default)s)")
    add("--python", default=default.python, help="run the server on this interpreter")
    add("--no-pin", action="store_true", help="let server and sender run on any CPU")
    add(
        "--json",
        type=place.place,
        metavar="PATH",
        help="write rows and all samples there; - is stdout",
    )
    add("--out", type=Path, default=Path("out"), metavar="DIR", help="of the picture (%(default)s)")
    add("--force", action="store_true", help="replace earlier pictures instead of numbering")
    add("--no-chart", action="store_true", help="draw no picture")


def run(args: argparse.Namespace) -> int:
    """Measure, then show: everything that can be refused is refused before the measurement."""
    try:
        options = _options(args)
        if args.json:
            place.check_writable(args.json)
        if not args.no_chart:
            chart.require_matplotlib()
            chart.prepare_folder(args.out)
        with bar() as progress:
            result = run_experiment(options, progress)
    except (BadOption, CannotWrite) as error:
        raise CommandError(str(error), USAGE) from error
    except (LabMissing, chart.NoCharts) as error:
        raise CommandError(str(error), NOT_POSSIBLE_HERE) from error
    except LabFailed as error:
        raise CommandError(str(error), FAILED) from error
    try:
        _write(result, args)
    except CannotWrite as error:
        raise CommandError(str(error), FAILED) from error
    finally:
        _show(result)
    if result.imbalance:
        raise CommandError(result.imbalance, FAILED)
    if result.interrupted:
        print("moored: interrupted; shown is what was measured so far", file=sys.stderr)
        return INTERRUPTED
    return 0


def _options(args: argparse.Namespace) -> Options:
    usual = BUSY_MODES if args.main_busy else USUAL_MODES
    return Options(
        modes=modes_in(args.modes) if args.modes is not None else usual,
        rate=args.rate,
        seconds=args.seconds,
        threads=args.threads,
        handler_us=args.handler_us,
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
    show(COLUMNS, result.rows)
    print()
    for sentence in result.findings:
        print(sentence)
    print(_books(result))


def _books(result: Result) -> str:
    counted = {key: int(result.counters.get(key, 0)) for key in ("delivered", "lost", "refused")}
    parts = " + ".join(f"{count:,} {what}" for what, count in counted.items())
    equal = "!=" if result.imbalance else "="
    return f"Events: {parts} {equal} {result.sent:,} sent."


def _write(result: Result, args: argparse.Namespace) -> None:
    document = result.to_json(command_line())
    if args.json:
        write_json(document, args.json)
        if not place.is_stdout(args.json):
            print(f"samples: {args.json}", file=sys.stderr)
    if not args.no_chart and document["samples"]:
        stem = f"wakeup-python{result.python}"
        paths = chart.save(wakeup_chart.draw(document), args.out, stem, args.force)
        print(f"picture: {' '.join(map(str, paths))}", file=sys.stderr)
