"""Runs the interpreters' own tests of threads, stock and under `moored run`, and compares."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from interpreters import Interpreter, find
from workspace import StepFailed, Workspace

SUITES = (
    "test_threading",
    "test_thread",
    "test_threading_local",
    "test_threadsignals",
    "test_ctypes",
    "test_concurrent_futures",
    "test_asyncio",
    "test_capi",
    "test_embed",
)
# What one run of one suite takes at most, in seconds.
LIMIT = 900.0
SHIPPED = (
    "import importlib.util, sys\n"
    "for name in sys.argv[1:]:\n"
    "    if importlib.util.find_spec('test') and importlib.util.find_spec('test.' + name):\n"
    "        print(name)\n"
)

# How the runner ends when the suite has no test for this system.
HAD_NOTHING_TO_RUN = {"exit code 0", "exit code 4"}
ROW = "{:14} {:24} {:36} {:36} {:>8} {:>6}  {}"

Results = dict[str, str]


@dataclass
class Run:
    """One suite, run one way."""

    ended: str
    results: Results = field(default_factory=dict)
    # Of moored run alone: the native threads that it saw, none when it left no word of itself.
    threads: int | None = None

    @property
    def usable(self) -> bool:
        """Tell whether there is something to compare."""
        return bool(self.results) or self.ended in HAD_NOTHING_TO_RUN

    def __str__(self) -> str:
        """Say how many tests ended how."""
        ends = list(self.results.values())
        if not ends:
            return f"no test ({self.ended})"
        failed, skipped = ends.count("failed"), ends.count("skipped")
        return f"{len(ends) - failed - skipped} ok, {failed} failed, {skipped} skipped"


@dataclass
class Comparison:
    """One suite, run both ways."""

    suite: str
    stock: Run
    kept: Run
    different: list[str] = field(init=False)
    # What differed once, and not when it was all run again.
    unsteady: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Find what ended otherwise; runs that say nothing are never the same."""
        names = sorted(self.stock.results.keys() | self.kept.results.keys())
        self.different = [
            name for name in names if self.stock.results.get(name) != self.kept.results.get(name)
        ]
        if self.stock.ended != self.kept.ended or not (self.stock.usable and self.kept.usable):
            self.different.append(f"stock {self.stock.ended}, under moored run {self.kept.ended}")
        if self.kept.threads is None:
            self.different.append("moored run did not tell what it kept")

    def row(self, interpreter: str) -> str:
        """Return its line of the table."""
        verdict = "yes" if not self.different else f"NO: {', '.join(self.different)}"
        if self.unsteady:
            verdict += f" (differed once: {', '.join(self.unsteady)})"
        threads = "?" if self.kept.threads is None else self.kept.threads
        cells = (self.suite, str(self.stock), str(self.kept), threads, f"{self.seconds:.0f}")
        return ROW.format(interpreter, *cells, verdict)


def read_results(path: Path) -> Results:
    """Read how each test of a JUnit file ended; of several with one name the worst counts."""
    results: Results = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname') or ''}.{case.get('name')}".strip(".")
        tags = {child.tag for child in case}
        if tags & {"failure", "error"} or case.get("result") == "error":
            results[name] = "failed"
        else:
            results.setdefault(name, "skipped" if "skipped" in tags else "ok")
    return results


def run_suite(workspace: Workspace, prefix: list[str | Path], suite: str, limit: float) -> Run:
    """Run one suite in a folder of its own, since tests write where they stand."""
    with tempfile.TemporaryDirectory(dir=workspace.build, ignore_cleanup_errors=True) as folder:
        report, told = Path(folder) / "report.xml", Path(folder) / "told.json"
        if len(prefix) > 1:
            prefix = [*prefix, "--json", told]
        words: list[str | Path] = ["-m", "test", "--junit-xml", report, "--tempdir", folder, suite]
        with (
            workspace.log.open("a") as log,
            # A session of its own, so that a suite out of time is ended with all its children.
            subprocess.Popen(
                workspace.interpreter.command(*prefix, *words),
                cwd=folder,
                env=workspace.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                ended = f"exit code {process.wait(limit)}"
            except BaseException as stopped:
                os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(stopped, subprocess.TimeoutExpired):
                    raise
                ended = f"out of time ({limit:.0f} s)"
        results = read_results(report) if report.exists() else {}
        threads = json.loads(told.read_text())["rows"][0]["threads_seen"] if told.exists() else None
    return Run(ended, results, threads)


def compare(workspace: Workspace, suite: str, limit: float) -> Comparison:
    """Run one suite both ways; what differs gets a second chance, since some tests are flaky."""
    started = time.monotonic()
    launcher = workspace.venv / "bin" / "moored"

    def once() -> Comparison:
        stock = run_suite(workspace, [workspace.python], suite, limit)
        return Comparison(suite, stock, run_suite(workspace, [launcher, "run"], suite, limit))

    compared = once()
    if first := compared.different:
        compared = once()
        again = compared.different
        compared.different = [name for name in again if name in first]
        compared.unsteady = sorted({*first, *again} - {*compared.different})
    compared.seconds = time.monotonic() - started
    return compared


def shipped(workspace: Workspace, wanted: list[str]) -> list[str]:
    """Name those of the suites that this interpreter ships."""
    return subprocess.run(
        workspace.interpreter.command(workspace.python, "-I", "-c", SHIPPED, *wanted),
        env=workspace.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


def run_all(workspace: Workspace, suites: list[str], limit: float) -> Iterator[Comparison]:
    """Compare one suite after the other."""
    for suite in suites:
        yield compare(workspace, suite, limit)


def prepare(interpreter: Interpreter, default: bool) -> Workspace:
    """Return the interpreter's workspace with moored in it."""
    workspace = Workspace(interpreter, default)
    workspace.prepare("develop" if default else "test")
    return workspace


def main() -> int:
    """Compare on the interpreters asked for, or on all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="VERSION", help="as in 3.12, or 3.12.1")
    parser.add_argument("--suite", nargs="+", metavar="NAME", default=list(SUITES))
    args = parser.parse_args()
    found = find()
    chosen = [
        one
        for one in found
        if not one.unusable
        and (not args.only or {one.version, one.series, one.name} & {*args.only})
    ]
    if not chosen:
        print("moored: no interpreter found to compare with", file=sys.stderr)
        return 3
    print(ROW.format("interpreter", "suite", "stock", "under moored run", "threads", "s", "same?"))
    different = 0
    for interpreter in chosen:
        try:
            workspace = prepare(interpreter, interpreter is found[0])
        except StepFailed as failure:
            print(f"{interpreter.name}: {failure}", file=sys.stderr)
            return 1
        available = shipped(workspace, args.suite)
        if lacking := [suite for suite in args.suite if suite not in available]:
            print(f"{interpreter.name}: does not ship {', '.join(lacking)}")
        for one in run_all(workspace, available, LIMIT):
            print(one.row(interpreter.name), flush=True)
            different += bool(one.different)
    print(f"\n{different} suites differ under moored run" if different else "\nno suite differs")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
