"""Runs all tests with every interpreter found: C++, Python, a short lab run, some of its own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from interpreters import Interpreter, find, missing
from results import Results, read_junit
from suites import run_all, shipped
from torture import CASES, FIRST_SEED, torture
from workspace import StepFailed, Workspace

# The lab's own tests and the consumers are run with the default interpreter; what depends on the
# Python version (the library, its core, and the server in every mode) is run with all.
CORE_ONLY = "not lab and not consumer and not program"
# Of the interpreters' own tests, those that are quick; `make suites` runs all, with all.
QUICK_SUITES = ["test_thread", "test_threading_local", "test_threading", "test_ctypes"]
# The event loops that a channel is tested in, where they have wheels.
LOOPS = ["anyio", "gevent", "trio", "uvloop"]
# Time limits, to end what hangs: a machine that is busy with other things takes several times as
# long as one that is not.
CPP_S, PYTHON_S, LAB_S, SUITE_S = 3600, 7200, 1200, 900
LAB_RUN = ["--seconds", "1", "--rate", "2000", "--handler-us", "20", "--repeat", "1"]


@dataclass
class Outcome:
    """What one interpreter's tests came to."""

    interpreter: Interpreter
    cpp: Results = field(default_factory=Results)
    python: Results = field(default_factory=Results)
    lab: Results = field(default_factory=Results)
    torture: Results = field(default_factory=Results)
    suites: Results = field(default_factory=Results)
    seconds: float = 0
    note: str = ""

    @property
    def total(self) -> Results:
        """All its tests together."""
        return self.cpp + self.python + self.lab + self.torture + self.suites


def test_cpp(workspace: Workspace) -> Results:
    """Build and run the C++ tests."""
    folder = workspace.build_cpp_tests()
    report = workspace.build / "ctest.xml"
    report.unlink(missing_ok=True)
    workspace.attempt(
        *("ctest", "--test-dir", folder, "--output-on-failure", "--no-tests=error"),
        *("--parallel", "2", "--output-junit", report),
        limit=CPP_S,
    )
    return read_junit(report)


def test_python(workspace: Workspace) -> Results:
    """Run the Python tests against the installed package."""
    report = workspace.build / "pytest.xml"
    report.unlink(missing_ok=True)
    selection: list[str] = [] if workspace.default else ["-m", CORE_ONLY]
    workspace.attempt(
        *(workspace.python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"),
        *("--numprocesses=2", "--dist=loadfile"),  # a file's tests share what they have built
        *selection,
        limit=PYTHON_S,
    )
    return read_junit(report)


def run_lab(workspace: Workspace) -> Results:
    """Run the lab shortly in every mode; each mode with a row in its result has passed."""
    result = workspace.build / "wakeup.json"
    result.unlink(missing_ok=True)
    command = workspace.venv / "bin" / "moored"
    output = [f"--json={result}"]
    output += [f"--out={workspace.build}", "--force"] if workspace.default else ["--no-chart"]
    status = workspace.attempt(command, "lab", "wakeup", *LAB_RUN, *output, limit=LAB_S)
    modes = len(json.loads(result.read_text())["rows"]) if result.exists() else 0
    return Results(passed=modes, failed=int(status != 0))


def run_torture(workspace: Workspace) -> Results:
    """Run the bounded torture; each case is one."""
    failed = torture(workspace, CASES, FIRST_SEED)
    return Results(passed=CASES - failed, failed=failed)


def compare_suites(workspace: Workspace) -> Results:
    """Run some of the interpreter's own tests, stock and under moored run; each suite is one."""
    results = Results()
    for one in run_all(workspace, shipped(workspace, QUICK_SUITES), limit=SUITE_S):
        results += Results(failed=1) if one.different else Results(passed=1)
        if one.different:
            print(f"{one.suite} differs: {', '.join(one.different)} ", end="", file=sys.stderr)
    return results


def test_one(interpreter: Interpreter, default: bool) -> Outcome:
    """Build and test with one interpreter; a part that cannot be built counts as one failure."""
    outcome = Outcome(interpreter)
    if interpreter.unusable:
        outcome.note = f"not tested: {interpreter.unusable}"
        return outcome
    workspace = Workspace(interpreter, default)
    started = time.monotonic()

    def part(name: str, run: Callable[[Workspace], Results]) -> Results:
        print(f"{interpreter.name}: {name} ", end="", file=sys.stderr, flush=True)
        since = time.monotonic()
        try:
            results = run(workspace)
            note = f"{results.failed} failed" if results.failed else ""
        except StepFailed as failure:
            results, note = Results(failed=1), str(failure)
        print(f"{time.monotonic() - since:.0f} s {note}", file=sys.stderr, flush=True)
        if results.failed:
            outcome.note = f"see {workspace.log}"
            print(workspace.log_tail(), file=sys.stderr)
        return results

    def install(workspace: Workspace) -> Results:
        workspace.prepare("develop" if default else "test")
        workspace.install_wheels(*LOOPS)
        if default:
            workspace.install_wheels("moored[programs]")
        return Results()

    outcome.python = part("package", install)
    if interpreter.library:
        outcome.cpp = part("C++ tests", test_cpp)
    else:
        outcome.note = "no C++ tests: it has no shared libpython"
    if not outcome.python.failed:
        outcome.python = part("Python tests", test_python)
        outcome.lab = part("lab run", run_lab)
        outcome.torture = part("torture", run_torture)
        if default:
            outcome.suites = part("own suites", compare_suites)
    outcome.seconds = time.monotonic() - started
    return outcome


def show(outcomes: list[Outcome], not_found: list[str]) -> None:
    """Print the summary table, what was not found, and the closing line."""
    rows = [
        [
            "interpreter",
            "C++ tests",
            "Python tests",
            "lab modes",
            "torture",
            "own suites",
            "seconds",
            "",
        ]
    ]
    for one in outcomes:
        cells = [
            results.cell() for results in (one.cpp, one.python, one.lab, one.torture, one.suites)
        ]
        rows.append([one.interpreter.name, *cells, f"{one.seconds:.0f}", one.note])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    if not_found:
        print(f"not found: Python {', '.join(not_found)}")
    total = sum((one.total for one in outcomes), Results())
    print(f"\n{total}")


def main() -> int:
    """Test with the interpreters asked for, or with all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="VERSION", help="as in 3.12, or 3.12.1")
    wanted = parser.parse_args().only
    found = find()
    default = found[:1]
    if wanted:
        found = [one for one in found if {one.name, one.version, one.series} & set(wanted)]
    if not found:
        print("moored: no interpreter found to test with", file=sys.stderr)
        return 3
    outcomes = [test_one(one, default=one in default) for one in found]
    show(outcomes, [] if wanted else missing(found))
    total = sum((one.total for one in outcomes), Results())
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
