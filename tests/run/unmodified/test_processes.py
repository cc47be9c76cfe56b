"""Programs of several processes whose native threads keep files in a threading.local.

They need nothing but what the tests themselves need, so that they run with every interpreter.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from both_ways import SCRIPTS, WAYS, Program, both, folder_for


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_loses_no_line(method, pool, tmp_path):
    stock, kept = both([SCRIPTS / "processes.py", method], tmp_path, POOL_LIBRARY=pool)
    assert stock.code == 0, stock.talk
    assert kept.talk == stock.talk


def outcomes(report: Path) -> dict[str, str]:
    """Read how each test ended."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {f"{case.get('name')}": " ".join(child.tag for child in case) for case in cases}


def test_a_suite_with_xdist(pool, tmp_path):
    words = ["-m", "pytest", "-n", "2", "-p", "xdist", "-p", "no:cacheprovider"]
    # Without plugins that happen to be there; hypothesis makes the workers' end take 10 s.
    variables = {"POOL_LIBRARY": pool, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = {}
    for way in WAYS:
        folder = folder_for(way, tmp_path)
        (folder / "pytest.ini").write_text("[pytest]\n")  # and not this checkout's
        report = folder / "report.xml"
        more = ["-c", folder / "pytest.ini", f"--junitxml={report}", SCRIPTS / "native_suite.py"]
        ran = Program(way, [*words, *more], folder, **variables).finish()
        assert report.exists(), ran.talk
        ended[way] = (ran.code, outcomes(report))
    code, tests = ended["stock"]
    assert code == 1
    assert len(tests) == 17
    failed = {name for name, outcome in tests.items() if outcome}
    assert failed == {"test_that_fails_by_what_a_callback_raised", "test_that_fails"}
    assert ended["kept"] == ended["stock"]
