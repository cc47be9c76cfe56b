"""A process that is already running is recorded for a while, and then is as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.limits import HANG_S
from support.processes import run_moored

from moored.doctor import capture

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="attaching needs Python 3.14: sys.remote_exec"
)

# Native threads call all the time, and main runs Python all the time.
BUSY = """
import ctypes, os, sys, threading
parts = ctypes.CDLL(os.environ["KNOWN_PARTS"])
local = threading.local()
callback = ctypes.CFUNCTYPE(None)(lambda: setattr(local, "seen", True))
threading.Thread(target=parts.run_sensor, args=(callback, 10**9), daemon=True).start()
asked = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), asked.set()), daemon=True).start()
print("ready", flush=True)
while not asked.is_set():
    pass
print("ended", flush=True)
os._exit(7)
"""
IDLE = """
import sys
print("ready", flush=True)
sys.stdin.buffer.raw.read(1)
print("ended", flush=True)
"""


@contextmanager
def running(code: str, *options: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that says when it is ready, and ends when its stdin does."""
    with subprocess.Popen(
        [sys.executable, *options, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | variables,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Let the program end; return what it wrote."""
    return process.communicate(timeout=HANG_S)


def test_it_is_recorded_and_goes_on_as_it_was(known_parts: Path, tmp_path: Path) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process:
        for at in range(2):  # a second time, too
            path = tmp_path / f"capture{at}"
            ending = run_moored("doctor", "attach", process.pid, "-d", "2", "-o", path)
            assert ending.code == 0, ending.err
            assert "known_parts!read_sensor" in ending.out
            recording = capture.read(path)
            assert recording.end == "detached"
            assert recording.total.calls == recording.total.temporary_states > 0
            assert recording.total.chunks > 0
            assert recording.locals_lost > 0
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            assert "/capture." not in maps
        out, err = ended(process)
        assert (process.returncode, out, err) == (7, "ended\n", "")


def test_an_idle_main_thread_is_said_and_nothing_happens_later() -> None:
    with running(IDLE) as process:
        ending = run_moored("doctor", "attach", process.pid, "--timeout", "0.2", "-d", "0.1")
        assert (ending.code, ending.out) == (3, "")
        assert "did not answer within 0.2 s" in ending.err
        out, err = ended(process)
        assert (process.returncode, out, err) == (0, "ended\n", "")


def test_ctrl_c_of_the_doctor_gives_the_answer(known_parts: Path) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process:
        command = [sys.executable, "-m", "moored", "doctor", "attach", str(process.pid)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as doctor:
            assert doctor.stderr is not None
            assert "Ctrl-C ends that" in doctor.stderr.readline()
            doctor.send_signal(signal.SIGINT)
            out, _ = doctor.communicate(timeout=HANG_S)
        assert doctor.returncode == 0
        assert "detached after" in out
        ended(process)
        assert process.returncode == 7


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_may_be_killed_meanwhile(known_parts: Path, end: signal.Signals) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process:
        command = [sys.executable, "-m", "moored", "doctor", "attach", str(process.pid)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as doctor:
            assert doctor.stderr is not None
            assert "Ctrl-C ends that" in doctor.stderr.readline()
            process.send_signal(end)
            process.wait(HANG_S)
            out, _ = doctor.communicate(timeout=HANG_S)
        assert doctor.returncode == 0
        assert "killed after" in out


@contextmanager
def attached(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Have a doctor record the process."""
    command = [sys.executable, "-m", "moored", "doctor", "attach", str(process.pid)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as doctor:
        try:
            assert doctor.stderr is not None
            assert "Ctrl-C ends that" in doctor.stderr.readline()
            yield doctor
        finally:
            doctor.kill()


def test_what_a_killed_doctor_has_left_is_taken_over(known_parts: Path, tmp_path: Path) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process:
        with attached(process) as doctor:
            left = next(
                Path(line.split(None, 5)[5]).parent
                for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()
                if "/capture." in line
            )
            doctor.kill()
            doctor.wait(HANG_S)
        assert left.exists()
        path = tmp_path / "capture"
        ending = run_moored("doctor", "attach", process.pid, "-d", "1", "-o", path)
        assert ending.code == 0, ending.err
        assert capture.read(path).total.calls > 0
        assert not left.exists()
        ended(process)
        assert process.returncode == 7


def test_two_doctors_of_one_process(known_parts: Path) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process, attached(process) as first:
        ending = run_moored("doctor", "attach", process.pid, "-d", "1")
        assert (ending.code, ending.out) == (3, "")
        assert "recorded already, by another doctor" in ending.err
        first.send_signal(signal.SIGINT)
        out, _ = first.communicate(timeout=HANG_S)
        assert "detached after" in out


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("999999999",), 2, "there is no process"),
        (("0",), 2, "there is no process"),
        (("1", "-d", "0"), 2, "give seconds"),
        (("1", "--timeout", "-1"), 2, "give seconds"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, code, reason):
    ending = run_moored("doctor", "attach", *words)
    assert (ending.code, ending.out) == (code, "")
    assert reason in ending.err
    assert "Traceback" not in ending.err


def test_a_process_that_refuses_is_not_asked() -> None:
    with running(IDLE, "-X", "disable_remote_debug") as process:
        ending = run_moored("doctor", "attach", process.pid)
        assert ending.code == 3
        assert "disable_remote_debug" in ending.err


def test_top_refuses_in_its_own_name() -> None:
    with running(IDLE, "-X", "disable_remote_debug") as process:
        ending = run_moored("top", process.pid)
    assert ending.code == 3
    assert "top: process" in ending.err
    assert "doctor: " not in ending.err


def test_a_process_without_python() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        ending = run_moored("doctor", "attach", process.pid)
        process.kill()
    assert ending.code == 3
    assert "has no Python" in ending.err


def test_top_attaches_to_what_is_not_recorded(known_parts: Path) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process:
        ending = run_moored("top", process.pid, "--interval", "0.3", "-n", "2")
        assert ending.code == 0, ending.err
        assert "known_parts!read_sensor" in ending.out
        ended(process)
        assert process.returncode == 7


LATE = """
import os, sys, threading
asked = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), asked.set()), daemon=True).start()
print("ready", flush=True)
while not asked.is_set():
    pass
import ctypes
parts = ctypes.CDLL(os.environ["KNOWN_PARTS"])
callback = ctypes.CFUNCTYPE(None)(lambda: None)
threading.Thread(target=parts.run_sensor, args=(callback, 10**9), daemon=True).start()
while True:
    pass
"""


def test_what_is_loaded_later_is_recorded_too(known_parts: Path) -> None:
    with running(LATE, KNOWN_PARTS=str(known_parts)) as process:
        command = [sys.executable, "-m", "moored", "top", str(process.pid), "--interval", "0.2"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as looking:
            assert looking.stdout is not None
            assert process.stdin is not None
            assert looking.stdout.readline()  # it is attached
            process.stdin.write("\n")
            process.stdin.flush()
            assert any("read_sensor" in line for line in looking.stdout)
            looking.send_signal(signal.SIGINT)
            looking.communicate(timeout=HANG_S)
