"""A process that is already running is recorded for a while, and then is as it was."""

from __future__ import annotations

import os
import shutil
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


@contextmanager
def attached(process: subprocess.Popen[str], *options: str) -> Iterator[subprocess.Popen[str]]:
    """Have a doctor record the process."""
    command = [sys.executable, "-m", "moored", "doctor", "attach", str(process.pid), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as doctor:
        try:
            assert doctor.stderr is not None
            assert "Ctrl-C ends that" in doctor.stderr.readline()
            yield doctor
        finally:
            doctor.kill()


def test_ctrl_c_of_the_doctor_gives_the_answer(known_parts: Path) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process:
        with attached(process) as doctor:
            doctor.send_signal(signal.SIGINT)
            out, _ = doctor.communicate(timeout=HANG_S)
        assert doctor.returncode == 0
        assert "detached after" in out
        ended(process)
        assert process.returncode == 7


@pytest.mark.parametrize(
    ("end", "said"),
    [(signal.SIGKILL, "killed"), (signal.SIGTERM, "killed"), (signal.SIGSEGV, "crashed")],
)
def test_the_process_may_be_killed_meanwhile(
    known_parts: Path, end: signal.Signals, said: str
) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process, attached(process) as doctor:
        process.send_signal(end)
        out, _ = doctor.communicate(timeout=HANG_S)  # before this, its parent, asks how it ended
    assert doctor.returncode == 0
    assert f"{said} after" in out


def test_how_it_ended_is_known_until_its_parent_has_asked(known_parts: Path) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process, attached(process) as doctor:
        doctor.send_signal(signal.SIGSTOP)
        process.kill()
        process.wait(HANG_S)
        doctor.send_signal(signal.SIGCONT)
        out, _ = doctor.communicate(timeout=HANG_S)
    assert doctor.returncode == 0
    assert " ended after" in out


def test_it_may_exit_by_itself(known_parts: Path) -> None:
    with running(BUSY, KNOWN_PARTS=str(known_parts)) as process, attached(process) as doctor:
        assert process.stdin is not None
        process.stdin.close()
        out, _ = doctor.communicate(timeout=HANG_S)
        assert process.wait(HANG_S) == 7
    assert doctor.returncode == 0
    assert "exited after" in out


EXECS = BUSY.replace("os._exit(7)", "os.execv('/bin/cat', ['cat', '/proc/self/comm'])")


def test_it_may_become_another_program(known_parts: Path) -> None:
    with running(EXECS, KNOWN_PARTS=str(known_parts)) as process, attached(process) as doctor:
        out, err = ended(process)
        assert (process.returncode, out, err) == (0, "ended\ncat\n", "")
        answer, _ = doctor.communicate(timeout=HANG_S)
    assert doctor.returncode == 0
    assert "known_parts!read_sensor" in answer


STAYS = BUSY.replace("os._exit(7)", "sys.stdout.flush(); os.execv('/bin/sleep', ['sleep', '1000'])")


def test_another_program_in_the_process_is_not_recorded(known_parts: Path) -> None:
    with running(STAYS, KNOWN_PARTS=str(known_parts)) as process, attached(process) as doctor:
        assert process.stdin is not None
        process.stdin.close()
        answer, _ = doctor.communicate(timeout=HANG_S)
    assert doctor.returncode == 0
    assert "replaced by another program after" in answer


# Main runs Python until it is told to wait in C, and again when it has read what ends it.
FALLS_ASLEEP = """
import ctypes, os, sys, threading
parts = ctypes.CDLL(os.environ["KNOWN_PARTS"])
callback = ctypes.CFUNCTYPE(None)(lambda: None)
threading.Thread(target=parts.run_sensor, args=(callback, 10**9), daemon=True).start()
asked = threading.Event()
word = os.pipe()
def listen():
    sys.stdin.readline()
    asked.set()
    os.write(word[1], sys.stdin.readline().encode())
threading.Thread(target=listen, daemon=True).start()
print("ready", flush=True)
while not asked.is_set():
    pass
print("asleep", flush=True)
os.read(word[0], 1)
maps = open("/proc/self/maps").read()
print("recorded" if "/capture." in maps else "free", flush=True)
os._exit(0)
"""


def test_a_main_thread_that_fell_asleep_takes_it_back_when_it_wakes(known_parts: Path) -> None:
    with running(FALLS_ASLEEP, KNOWN_PARTS=str(known_parts)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with attached(process, "--timeout", "3") as doctor:
            process.stdin.write("sleep\n")
            process.stdin.flush()
            assert process.stdout.readline() == "asleep\n"
            doctor.send_signal(signal.SIGINT)
            out, err = doctor.communicate(timeout=HANG_S)
        assert doctor.returncode == 0
        assert "detached after" in out
        assert "has not answered for 3 s" in err
        assert "Traceback" not in err
        process.stdin.write("wake\n")
        process.stdin.flush()
        assert process.stdout.readline() == "free\n"
        assert process.wait(HANG_S) == 0


WAITS_IN_EPOLL = """
import select, sys
print("ready", flush=True)
poll = select.epoll()
poll.register(0, select.EPOLLIN)
poll.poll()
print("ended", flush=True)
"""


def test_wake_reaches_a_main_thread_in_epoll() -> None:
    with running(WAITS_IN_EPOLL) as process:
        words = ("doctor", "attach", process.pid, "-d", "0.1")
        ending = run_moored(*words, "--timeout", "0.3")
        assert ending.code == 3
        assert "try --wake" in ending.err
        ending = run_moored(*words, "--wake")
        assert ending.code == 0, ending.err
        out, err = ended(process)
        assert (process.returncode, out, err) == (0, "ended\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_process_of_another_user() -> None:
    def run_as_another(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "moored", *words]
        return subprocess.run(
            command, cwd="/", user=65534, capture_output=True, text=True, timeout=HANG_S
        )

    if run_as_another("--version").returncode != 0:
        pytest.skip("another user cannot run this Python")
    with running(IDLE) as process:
        doctor = run_as_another("doctor", "attach", str(process.pid))
        assert (doctor.returncode, doctor.stdout) == (3, "")
        assert len(doctor.stderr.splitlines()) == 1
        assert "be its user, or root" in doctor.stderr
        ended(process)
        assert process.returncode == 0


@pytest.mark.parametrize("minor", [13, 14, 15])
def test_a_process_of_another_python(minor: int) -> None:
    python = shutil.which(f"python3.{minor}")
    if python is None:
        pytest.skip(f"no python3.{minor} here")
    shown = subprocess.run([python, "-V"], capture_output=True, text=True, check=True)
    other = int(shown.stdout.split(".")[1])
    if other == sys.version_info[1]:
        pytest.skip(f"{python} is of the same version")
    with subprocess.Popen(
        [python, "-c", IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == b"ready\n"
        ending = run_moored("doctor", "attach", it.pid)
        it.communicate(timeout=HANG_S)
        assert it.returncode == 0
    assert (ending.code, ending.out) == (3, "")
    assert f"runs Python 3.{other}, and" in ending.err
    use = "start it under: moored doctor" if other < 14 else f"python3.{other} -m moored doctor"
    assert use in ending.err


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
