"""moored doctor: runs a program and says what its native threads pay to enter Python."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from moored.cli.errors import CommandError, ExitCode

from . import answer, attach_command, capture, compare, reporting, running, top_command
from .findings import find_all
from .recording import Recording

HELP = "run a program, and say what its native threads pay to enter Python, and what to do"

USAGE = """\
moored doctor [run] [-o FILE] [-d SECONDS] [options] SCRIPT [ARGUMENT ...]
       moored doctor [run] [options] -m MODULE | -c CODE | --exec PROGRAM [ARGUMENT ...]
       moored doctor attach PID [-o FILE] [-d SECONDS] [--timeout SECONDS] [--wake] [--strict]
       moored doctor report FILE [-f FORMAT] [-o FILE]
       moored doctor compare [options] SCRIPT [ARGUMENT ...]
       moored doctor top PID"""


def run_words(words: list[str]) -> int:
    """Run what the words behind `moored doctor` say; return the exit code."""
    commands = {
        "run": _run,
        "attach": _attach,
        "report": _report,
        "compare": _compare,
        "top": top_command.run_words,
    }
    if words and words[0] in commands:
        return commands[words[0]](words[1:])
    return _run(words)


def _parser(name: str, description: str, usage: str | None = None) -> argparse.ArgumentParser:
    prog = f"moored doctor {name}".rstrip()
    return argparse.ArgumentParser(
        prog=prog, usage=usage, description=description, allow_abbrev=False
    )


def _with_target(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """Part this command's options from the program's words, which begin with the first other one.

    Python's own options (-u, -X dev, ...) belong to the program.
    """
    taking = {
        option: action.nargs != 0 for action in parser._actions for option in action.option_strings
    }
    at = 0
    while at < len(words):
        name = words[at].partition("=")[0]
        if name not in taking or (name in ("-m", "-c")):
            break
        at += 1 if "=" in words[at] or not taking[name] else 2
    target = tuple(words[at + 1 :] if words[at : at + 1] == ["--"] else words[at:])
    args = parser.parse_args(words[:at])
    if not target:
        raise CommandError(
            "doctor: say what to run: a script, -m MODULE, -c CODE or --exec PROGRAM",
            ExitCode.USAGE,
        )
    return args, target


def _run(words: Sequence[str]) -> int:
    parser = _parser("", HELP, USAGE)
    parser.epilog = (
        "The answer comes on stderr when the program has ended; the program keeps its streams and "
        "its exit code."
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="keep the capture, for report")
    parser.add_argument(
        "-d", "--duration", metavar="SECONDS", type=float, help="end the program after so long"
    )
    parser.add_argument(
        "--subprocesses", action="store_true", help="record what the program starts, too"
    )
    parser.add_argument(
        "--kept", action="store_true", help="run it under `moored run`, not as it is"
    )
    parser.add_argument("--strict", action="store_true", help="exit 4 when there are findings")
    args, target = _with_target(parser, words)
    if args.duration is not None and not 0 < args.duration < 1e7:
        raise CommandError(
            f"doctor: -d {args.duration:g} is not possible: give seconds, more than 0",
            ExitCode.USAGE,
        )
    with _place(args.output) as record:
        plan = running.Plan(
            target=target,
            record=record,
            options=() if args.kept else ("--stock",),
            children=args.subprocesses,
            seconds=args.duration,
        )
        ending = running.run(plan)
        if not ending.captures:
            if ending.code == 0:
                raise CommandError(
                    "doctor: nothing was recorded: no Python of this moored's came up in the "
                    "program; see docs/use/run.md, where it does not work",
                    ExitCode.NOT_POSSIBLE_HERE,
                )
            return ending.code
        kept = _keep(ending.captures, args.output)
        recordings = [capture.read(path) for path in kept]
    for recording in recordings:
        if len(recordings) > 1:
            print(f"process {recording.pid}:", file=sys.stderr)
        print(answer.answer(recording, answer.look_of(sys.stderr)), file=sys.stderr)
    if args.output:
        names = ", ".join(str(path) for path in kept)
        more = f"moored doctor report {kept[0]} -f html -o {kept[0]}.html"
        print(f"recorded in {names}; more: {more}", file=sys.stderr)
    return _judged(ending.code, recordings, args.strict)


def _judged(code: int, recordings: Sequence[Recording], strict: bool) -> int:
    found = strict and any(find_all(recording) for recording in recordings)
    return ExitCode.MISSED if code == 0 and found else code


@contextlib.contextmanager
def _place(output: str | None) -> Iterator[Path]:
    """Give the name of the captures: the one that is asked for, or one that goes afterwards."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="moored-doctor-") as folder:
            yield Path(folder, "capture")
        return
    path = Path(output).absolute()
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise CommandError(
            f"cannot write {output}: no such folder, or no permission", ExitCode.USAGE
        )
    if path.is_dir():
        raise CommandError(f"cannot write {output}: it is a folder", ExitCode.USAGE)
    yield path


def _keep(captures: Sequence[Path], output: str | None) -> list[Path]:
    """Give the program's own capture the name that was asked for; the others keep their number."""
    if output is None:
        return list(captures)
    own = Path(output)
    captures[0].replace(own)
    return [own, *captures[1:]]


def _report(words: Sequence[str]) -> int:
    parser = _parser("report", reporting.HELP_REPORT)
    reporting.add_report_arguments(parser)
    return reporting.run_report(parser.parse_args(list(words)))


def _attach(words: Sequence[str]) -> int:
    parser = _parser("attach", attach_command.HELP)
    attach_command.add_arguments(parser)
    args = parser.parse_args(list(words))
    attach_command.check(args)
    if args.output is None:
        return attach_command.run(args)
    with _place(args.output):  # says at once where nothing can be written
        return attach_command.run(args)


def _compare(words: Sequence[str]) -> int:
    parser = _parser("compare", "run a program in turns as it is and under moored run")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (%(default)s)")
    parser.add_argument(
        "-d", "--duration", metavar="SECONDS", type=float, help="end each run after"
    )
    parser.add_argument("--urgent", action="store_true", help="under moored run --urgent")
    args, target = _with_target(parser, words)
    if not 1 <= args.rounds <= 1000:
        raise CommandError(f"doctor: --rounds {args.rounds}: give 1 to 1000", ExitCode.USAGE)
    heard: dict[bool, list[Recording]] = {False: [], True: []}
    kept_options = ("--urgent",) if args.urgent else ()
    with tempfile.TemporaryDirectory(prefix="moored-doctor-") as folder:
        for turn in range(args.rounds):
            for kept, options in ((False, ("--stock",)), (True, kept_options)):
                record = Path(folder, f"{turn}-{kept}")
                plan = running.Plan(target, record, options, False, args.duration)
                ending = running.run(plan)
                if not ending.captures or (ending.code != 0 and args.duration is None):
                    way = "under moored run" if kept else "as it is"
                    raise CommandError(
                        f"doctor: the program ended with {ending.code} ({way}, round {turn + 1})"
                    )
                heard[kept].append(capture.read(ending.captures[0]))
    rows = compare.compare(heard[False], heard[True])
    after = "moored run --urgent" if args.urgent else "moored run"
    print(f"before: as it is; after: {after}; medians and ratios of {args.rounds} rounds")
    print(compare.show(rows, answer.look_of(sys.stdout)), end="")
    return ExitCode.FINE
