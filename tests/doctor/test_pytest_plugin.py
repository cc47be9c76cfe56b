"""The pytest plugin: limits that fail a test with the sites named, and a summary."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.processes import Ending, finish

TESTS = """
import ctypes, os, threading
import pytest

parts = ctypes.CDLL(os.environ["KNOWN_PARTS"])
callback = ctypes.CFUNCTYPE(None)(lambda: None)

@pytest.mark.limit_temporary_states(0)
def test_calls_nobody():
    pass

@pytest.mark.limit_temporary_states(9)
def test_pays_for_ten():
    parts.run_sensor(callback, 10)

@pytest.mark.limit_temporary_states(10)
def test_may_pay_for_ten():
    parts.run_sensor(callback, 10)

@pytest.mark.limit_gil_wait("1us")
def test_waits_for_main():
    calls = []
    counting = ctypes.CFUNCTYPE(None)(lambda: calls.append(None))
    thread = threading.Thread(target=parts.run_sensor, args=(counting, 20))
    thread.start()
    while len(calls) < 20:
        pass  # the thread pauses between calls, and finds main here
    thread.join()

@pytest.mark.limit_gil_wait("100s")
def test_may_wait():
    parts.run_sensor(callback, 10)
"""


@pytest.fixture
def run(tmp_path: Path, known_parts: Path):
    def run(text: str, *words: str) -> Ending:
        path = tmp_path / "test_it.py"
        path.write_text(text)
        env = os.environ | {"KNOWN_PARTS": str(known_parts), "NO_COLOR": "1"}
        command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words, path)
        return finish(*command, env=env, folder=tmp_path)

    return run


def test_a_test_over_its_limit_fails_and_the_sites_are_named(run):
    ending = run(TESTS, "--moored-doctor", "-q")
    assert ending.code == 1, ending.out
    failed = [
        line.split("::")[1].split()[0] for line in ending.out.splitlines() if "FAILED" in line
    ]
    assert failed == ["test_pays_for_ten", "test_waits_for_main"]
    assert "10 temporary thread states were made, and 9 may be:" in ending.out
    assert "10 by known_parts!read_sensor through _ctypes" in ending.out
    assert "native threads waited longer than 1.00 us for the GIL:" in ending.out
    assert "moored doctor" in ending.out


def test_without_the_option_nothing_is_recorded_and_nothing_checked(run):
    ending = run(TESTS, "-q", "--strict-markers")
    assert ending.code == 0, ending.out
    assert "moored doctor" not in ending.out


@pytest.mark.parametrize(
    "mark", ["limit_gil_wait('soon')", "limit_temporary_states(-1)", "limit_temporary_states()"]
)
def test_a_limit_that_is_none_is_said(run, mark):
    ending = run(f"import pytest\n@pytest.mark.{mark}\ndef test(): pass\n", "--moored-doctor")
    assert ending.code != 0
    assert mark.partition("(")[0] in ending.out
