"""Judge: whether a case's process ended as it should have, and with everything counted."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moored_lab.torture.cases import EXIT_CODE, Case

Report = Mapping[str, int]

CODES = {
    "return": 0,
    "sys.exit": EXIT_CODE,
    "exception": 1,
    "atexit": 0,
    "first call in atexit": 0,
    "thread exits": 0,
    "SIGINT": -2,
    "SIGTERM": -15,
    "os._exit": EXIT_CODE,
    "embedded": 0,
}
NO_REPORT = ("SIGINT", "SIGTERM", "os._exit")
"""Endings after which no code of the process runs."""

LATE = re.compile(r"moored: shutdown goes on although \d+ native call\(s\) did not leave Python")
LEFT = re.compile(r"moored: channel 'torture' ends with \d+ event\(s\) that were not taken")


def faults(case: Case, code: int, stderr: str, report: Report | None) -> list[str]:
    """Say what is wrong; nothing when all is well."""
    wrong = []
    # What runs source takes the mark of the interrupt away again, by which Python ends itself.
    as_error = case.ending == "SIGINT" and case.has("visit") and code == 1
    if code != CODES[case.ending] and not as_error:
        wrong.append(f"it {how_ended(code)}")
    unexpected = [line for line in stderr.splitlines() if not _expected(case, line)]
    if unexpected and not (case.ending in ("exception", "SIGINT") and _traceback(unexpected)):
        wrong.append(f"it said: {unexpected[-1][:200]}")
    if report is None:
        if case.ending not in NO_REPORT and not wrong:
            wrong.append("it gave no report")
        return wrong
    return wrong + _miscounted(case, report)


def how_ended(code: int) -> str:
    """Say an exit code in words."""
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _expected(case: Case, line: str) -> bool:
    if LATE.match(line):
        return case.has("overstay")
    return bool(LEFT.match(line)) and case.has_channel()


def _traceback(lines: list[str]) -> bool:
    last = lines[-1]
    starts = lines[0].startswith("Traceback ")
    return starts and (last == "RuntimeError: by the case" or last == "KeyboardInterrupt")


def _miscounted(case: Case, report: Report) -> list[str]:
    """Compare what must be equal when everything is at rest."""
    wrong = []

    def equal(what: str, one: int, other: int) -> None:
        if one != other:
            wrong.append(f"{what}: {one} against {other}")

    late = report["overdue"] != 0
    if report["unjoined"] and not late:
        wrong.append(f"{report['unjoined']} native threads did not end")
    # An exit handler that an exit handler registers is not called: nothing waits for those inside.
    if late and not (case.has("overstay") or case.ending == "first call in atexit"):
        wrong.append(f"shutdown gave up on {report['overdue']} calls")
    if report["failures"] and not late:
        wrong.append(f"{report['failures']} calls failed")
    if not late:
        # A thread that comes too late is stopped for ever, with what it had.
        gone = report["kept"] + report["freed"] + report["forgotten"]
        equal("states made, and seen to", report["made"] + report["adopted"], gone)
    unsent = report["dropped_newest"] + report["rejected"] + report["refused"]
    equal("events given to send(), and counted", report["attempts"], report["sent"] + unsent)
    lost = report["dropped_oldest"] + report["unconvertible"] + report["undelivered"]
    equal("events sent, and seen to", report["sent"], report["delivered"] + lost + report["depth"])
    if not late:
        equal("events delivered, and seen by the handler", report["delivered"], report["taken"])
    if case.consumers and case.ending not in NO_REPORT:
        equal("events left behind by loops that waited for the close", report["depth"], 0)
    lost_objects = report["objects"] - report["finalised"] - report["references_forgotten"]
    if lost_objects > 0 and not late:
        wrong.append(f"{lost_objects} objects that were let go were neither finalised nor counted")
    return wrong
