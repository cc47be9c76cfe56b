"""Runs the interpreters' own tests of threads, stock and under `moored run`, and compares."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

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
# Of each test: what it takes at most, in seconds.
LIMIT = 900.0
SHIPPED = (
    "import importlib.util, sys\n"
    "for name in sys.argv[1:]:\n"
    "    if importlib.util.find_spec('test') and importlib.util.find_spec('test.' + name):\n"
    "        print(name)\n"
)

Results = dict[str, str]


@dataclass
class Comparison:
    """One suite, run both ways."""

    suite: str
    stock: Results
    kept: Results
    seconds: float = 0.0
    different: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Find the tests that ended otherwise."""
        names = sorted(self.stock.keys() | self.kept.keys())
        self.different = [name for name in names if self.stock.get(name) != self.kept.get(name)]


def read_results(path: Path) -> Results:
    """Read how each test of a JUnit file ended: passed, failed or skipped."""
    results: Results = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname') or ''}.{case.get('name')}".strip(".")
        tags = {child.tag for child in case}
        failed = bool(tags & {"failure", "error"}) or case.get("result") == "error"
        results[name] = (
            "failed" if failed else "skipped" if "skipped" in tags else case.get("status") or "run"
        )
    return results


def run_suite(workspace: Workspace, prefix: list[str | Path], suite: str) -> Results:
    """Run one suite in a folder of its own; one result more says how the runner itself ended."""
    with tempfile.TemporaryDirectory(dir=workspace.build) as folder:
        report = Path(folder) / "report.xml"
        words: list[str | Path] = ["-m", "test", "--junit-xml", report, "--tempdir", folder, suite]
        with workspace.log.open("a") as log:
            try:
                status = subprocess.run(
                    workspace.interpreter.command(*prefix, *words),
                    cwd=folder,
                    env=workspace.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=LIMIT,
                ).returncode
            except subprocess.TimeoutExpired:
                return {suite: "out of time"}
        results = read_results(report) if report.exists() else {}
    return results | {suite: f"exit code {status}"}


def compare(workspace: Workspace, suite: str) -> Comparison:
    """Run one suite both ways; what differs gets a second chance, since some tests are flaky."""
    started = time.monotonic()
    launcher = workspace.venv / "bin" / "moored"

    def once() -> Comparison:
        stock = run_suite(workspace, [workspace.python], suite)
        return Comparison(suite, stock, run_suite(workspace, [launcher, "run"], suite))

    compared = once()
    if compared.different:
        compared = once()
    compared.seconds = time.monotonic() - started
    return compared


def count(results: Results) -> str:
    """Say how many tests ended how."""
    ends = list(results.values())
    failed = sum(end == "failed" for end in ends)
    skipped = sum(end == "skipped" for end in ends)
    passed = len(ends) - failed - skipped - 1  # the last one is the runner
    return f"{passed} ok, {failed} failed, {skipped} skipped"


def run_all(workspace: Workspace, wanted: list[str], out: TextIO) -> list[Comparison]:
    """Run those suites that this interpreter ships, and say of each how it went."""
    shipped = subprocess.run(
        workspace.interpreter.command(workspace.python, "-I", "-c", SHIPPED, *wanted),
        env=workspace.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    name = workspace.interpreter.name
    if missing := [suite for suite in wanted if suite not in shipped]:
        print(f"{name}: does not ship {', '.join(missing)}", file=out)
    compared = []
    for suite in shipped:
        one = compare(workspace, suite)
        verdict = "the same" if not one.different else f"DIFFERENT: {', '.join(one.different)}"
        print(f"{name}: {suite}: {count(one.stock)}; {verdict} ({one.seconds:.0f} s)", file=out)
        out.flush()
        compared.append(one)
    return compared


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
    different = 0
    for interpreter in chosen:
        try:
            compared = run_all(
                prepare(interpreter, interpreter is found[0]), args.suite, sys.stdout
            )
        except StepFailed as failure:
            print(f"{interpreter.name}: {failure}", file=sys.stderr)
            return 1
        different += sum(bool(one.different) for one in compared)
    print(f"\n{different} suites differ under moored run" if different else "\nno suite differs")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
