"""moored torture: native threads meet every way in which Python can end, in random cases."""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter
from pathlib import Path

from moored.cli.errors import CommandError, ExitCode
from moored_lab.bench.interpreter import NoSuchPython, look_at
from moored_lab.bench.workshop import CannotBuild, CannotStart, default_cache
from moored_lab.commands import outputs
from moored_lab.report import document
from moored_lab.report.progress import bar
from moored_lab.torture import running
from moored_lab.torture.running import Bench, Outcome

HELP = "native threads meet every way in which Python can end; each failure can be replayed"

WORDS_SHOWN = 12
JOBS_PER_CPU = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("--seconds", type=float, metavar="N", help="begin no case after so long (default: 60)")
    add("--cases", type=int, metavar="N", help="run so many instead")
    add("--seed", type=int, metavar="S", help="of the first case; each one's is 1 more (random)")
    add(
        "--jobs", type=int, metavar="N", default=os.cpu_count() or 1, help="at a time (%(default)s)"
    )
    add(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="where the native threads are built, and kept for the next time (%(default)s)",
    )
    add(
        "--sanitize",
        choices=("address", "undefined"),
        default="",
        help="build the native threads under a sanitizer",
    )
    add("--verbose", action="store_true", help="say each case, and all that a failed one said")
    outputs.add_json(parser)


@outputs.tables_beside_document
def run(args: argparse.Namespace) -> int:
    """Run the cases, say what failed, and sum up."""
    seconds, number = _check(args)
    first = random.SystemRandom().randrange(1_000_000_000) if args.seed is None else args.seed
    outputs.check(args)
    try:
        bench = running.build(look_at(sys.executable), args.cache, args.sanitize)
    except NoSuchPython as error:
        raise CommandError(f"torture: {error}", ExitCode.NOT_POSSIBLE_HERE) from error
    except (CannotStart, CannotBuild) as error:
        raise CommandError(f"torture: {error}", ExitCode.NOT_POSSIBLE_HERE) from error
    for what, why in bench.without.items():
        print(f"without {what}: {why}", file=sys.stderr)
    outcomes = _run(bench, first, number, seconds, args)
    rows = [_row(outcome) for outcome in outcomes]
    try:
        outputs.write(args, document.describe(document.command_line(), rows))
    finally:
        _summary(first, outcomes)
    return ExitCode.FAILED if any(outcome.faults for outcome in outcomes) else ExitCode.FINE


def _check(args: argparse.Namespace) -> tuple[float | None, int | None]:
    if args.cases is not None and args.cases < 1:
        raise CommandError(f"--cases {args.cases}: give at least 1", ExitCode.USAGE)
    if args.seconds is not None and not 0.0 < args.seconds <= 604_800.0:
        raise CommandError(
            f"--seconds {args.seconds:g}: give more than 0, at most a week", ExitCode.USAGE
        )
    most = JOBS_PER_CPU * (os.cpu_count() or 1)
    if not 1 <= args.jobs <= most:
        raise CommandError(
            f"--jobs {args.jobs}: give 1 to {most}, {JOBS_PER_CPU} for each CPU; each job is a "
            "process with up to some sixty threads",
            ExitCode.USAGE,
        )
    if args.seed is not None and args.seed < 0:
        raise CommandError(f"--seed {args.seed}: give 0 or more", ExitCode.USAGE)
    if args.cases is not None:
        return args.seconds, args.cases
    return args.seconds or 60.0, None


def _run(
    bench: Bench, first: int, number: int | None, seconds: float | None, args: argparse.Namespace
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    seeds = running.seeds_from(first, number)
    with bar() as progress:
        for outcome in running.run_all(bench, seeds, seconds, args.jobs):
            outcomes.append(outcome)
            if number:
                progress(len(outcomes) / number, f"{len(outcomes)} cases")
            if args.verbose:
                print(f"seed {outcome.case.seed}: {outcome.case.words()} ({outcome.seconds:.1f} s)")
            if outcome.faults:
                _say(outcome, args.verbose)
    return outcomes


def _say(outcome: Outcome, whole: bool) -> None:
    """Say what failed, and how to see it again."""
    case = outcome.case
    print(f"FAILED seed {case.seed}: {'; '.join(outcome.faults)}")
    print(f"  {case.words()}")
    lines = outcome.stderr.splitlines()
    for line in lines if whole else lines[:WORDS_SHOWN]:
        print(f"  | {line}")
    print(f"  again: moored torture --cases 1 --verbose --seed {case.seed}")


def _summary(first: int, outcomes: list[Outcome]) -> None:
    failed = sum(bool(outcome.faults) for outcome in outcomes)
    sums: Counter[str] = Counter()
    for outcome in outcomes:
        sums.update(outcome.report)
    print(
        f"{len(outcomes)} cases from seed {first}: {failed or 'none'} failed; "
        f"{sums['calls']:,} calls, {sums['visits']:,} in subinterpreters, "
        f"{sums['refusals']:,} refusals, {sums['made']:,} states, "
        f"{sums['sent']:,} events, {sums['overdue']:,} given up"
    )


def _row(outcome: Outcome) -> dict[str, object]:
    return {
        "seed": outcome.case.seed,
        "case": outcome.case.words(),
        "seconds": round(outcome.seconds, 3),
        "faults": outcome.faults,
        **outcome.report,
    }
