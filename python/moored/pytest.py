"""The pytest plugin: `--moored-doctor` records the run, and marks limit what a test may pay.

@pytest.mark.limit_temporary_states(0) fails a test during which native threads were given more
temporary thread states than that, and @pytest.mark.limit_gil_wait("5ms") one in which a native
thread waited longer for the GIL at once; both name the sites. Without --moored-doctor nothing is
recorded, and the marks check nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moored.doctor.recording import Counts, Recording

RECORD_VARIABLE = "MOORED_RUN_RECORD"
MARKS = {
    "limit_temporary_states": "limit_temporary_states(most): fail when native threads are given "
    "more temporary thread states during the test; under --moored-doctor",
    "limit_gil_wait": 'limit_gil_wait("5ms"): fail when a native thread waits longer for the GIL '
    "at once during the test; under --moored-doctor",
}
UNITS = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.getgroup("moored").addoption(
        "--moored-doctor",
        action="store_true",
        help="record what native threads pay to enter Python, check the limits that tests set, "
        "and say at the end what was found",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    for line in MARKS.values():
        config.addinivalue_line("markers", line)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Start pytest anew under the recorder, which has to be there before Python is."""
    if not config.getoption("moored_doctor") or os.environ.get(RECORD_VARIABLE):
        return
    from moored.cli.errors import CommandError
    from moored.cli.run import command

    words = [str(word) for word in config.invocation_params.args]
    folder = tempfile.mkdtemp(prefix="moored-pytest-")
    try:
        line = command(
            f"--record={Path(folder, 'capture')}",
            f"--command={shlex.join(['-m', 'pytest', *words])}",
            "--stock",
            "-m",
            "pytest",
            *words,
        )
    except CommandError as error:
        raise pytest.UsageError(f"--moored-doctor: {error}") from error
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(config.invocation_params.dir)
    os.execv(line[0], line)


def _recorded() -> Recording | None:
    """Return what was recorded of this process until now."""
    record = os.environ.get(RECORD_VARIABLE)
    path = Path(f"{record}.{os.getpid()}")
    if not record or not path.exists():
        return None
    from moored.doctor import capture

    return capture.read(path)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """Run the test, and fail it when it was over a limit."""
    limits = _limits(item)
    before = _recorded() if limits and item.config.getoption("moored_doctor") else None
    outcome = yield
    if before is None or outcome.excinfo is not None:
        return
    after = _recorded()
    assert after is not None
    over = _over(limits, before, after)
    if over:
        outcome.force_exception(pytest.fail.Exception("\n".join(over), pytrace=False))


def _limits(item: pytest.Item) -> dict[str, int]:
    """Return the marks' limits: states, and ns of waiting."""
    found = {}
    for name in MARKS:
        mark = item.get_closest_marker(name)
        if mark is not None:
            if len(mark.args) != 1 or mark.kwargs:
                raise pytest.UsageError(f"{item.nodeid}: {name} takes one value")
            found[name] = _states(mark.args[0]) if "states" in name else _ns(mark.args[0])
    return found


def _states(given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise pytest.UsageError(f"limit_temporary_states({given!r}): give a number of states")
    return given


def _ns(given: object) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s)\s*", str(given))
    if found is None:
        raise pytest.UsageError(
            f'limit_gil_wait({given!r}): give a time with its unit, as in "5ms", "200us" or "1s"'
        )
    return round(float(found[1]) * UNITS[found[2]])


def _over(limits: dict[str, int], before: Recording, after: Recording) -> list[str]:
    """Say what was exceeded, with the sites that did."""
    from moored.doctor import names, words

    earlier = {site.key: site.counts for site in before.sites}
    said = []
    most = limits.get("limit_temporary_states")
    if most is not None:
        more = {site: _more(site.counts, earlier.get(site.key)) for site in after.sites}
        states = sum(more.values())
        if states > most:
            lines = [
                f"  {count:,} by {names.site_name(site)} through {names.binding_name(site)}"
                for site, count in more.items()
                if count
            ]
            given = words.count(states, "temporary thread state")
            said += [f"{given} were made, and {most:,} may be:", *lines]
    most = limits.get("limit_gil_wait")
    if most is not None:
        # The longest wait since the process began: one that this test has not made longer is not
        # this test's.
        slow = {
            site: site.counts.longest_wait_ns
            for site in after.sites
            if site.counts.longest_wait_ns > most
            and site.counts.longest_wait_ns > getattr(earlier.get(site.key), "longest_wait_ns", 0)
        }
        if slow:
            lines = [
                f"  {words.time(ns)} by {names.site_name(site)} through {names.binding_name(site)}"
                for site, ns in slow.items()
            ]
            said += [f"native threads waited longer than {words.time(most)} for the GIL:", *lines]
    return said


def _more(now: Counts, before: Counts | None) -> int:
    return now.temporary_states - (before.temporary_states if before is not None else 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was found in the whole run."""
    recording = _recorded() if config.getoption("moored_doctor") else None
    if recording is None:
        return
    from moored.doctor.answer import answer

    terminalreporter.section("moored doctor")
    terminalreporter.write(answer(recording))
