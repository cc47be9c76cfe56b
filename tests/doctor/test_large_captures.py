"""A capture of ten million calls is opened in little memory, and its page stays small."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.building import PYTHON_INCLUDE, SHARED, compile_program
from support.limits import HANG_S
from support.processes import run_moored

from moored.doctor import capture

EXTENSION = Path(__file__).resolve().parents[1] / "run" / "plain_extension.c"
CALLS = 10_000_000
MOST_KIB = 300 * 1024
MOST_PAGE_BYTES = 5_000_000
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record ten million calls of one native thread, and some of another."""
    folder = tmp_path_factory.mktemp("large")
    target = folder / "native_extension.so"
    compile_program(EXTENSION, target, *SHARED, "-isystem", PYTHON_INCLUDE)
    calls = f"it.call_many(int, {CALLS - 100}); it.call_many(int, 100)"
    code = f"import native_extension as it; {calls}"
    made = folder / "capture"
    ending = run_moored("doctor", "-o", made, "-c", code, PYTHONPATH=str(folder))
    assert ending.code == 0, ending.err
    return made


@pytest.mark.parametrize("form", ["terminal", "html", "json", "firefox"])
def test_it_opens(path: Path, tmp_path: Path, form: str) -> None:
    assert capture.read(path).total.calls == CALLS
    page = tmp_path / "page"
    report = [sys.executable, "-m", "moored", "doctor", "report", str(path), "-f", form]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *report, "-o", str(page)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    took = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    used_kib, size = int(done.stderr.split()[-1]), page.stat().st_size
    print(f"{form}: {took:.2f} s, {used_kib / 1024:.0f} MB, {size:,} bytes")
    assert used_kib < MOST_KIB
    assert size < MOST_PAGE_BYTES
