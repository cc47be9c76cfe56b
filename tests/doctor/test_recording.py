"""What is recorded of a program of known parts, and that the program is what it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.limits import HANG_S
from support.processes import run_moored

from moored.doctor import capture

WITHOUT_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
needs_gil = pytest.mark.skipif(WITHOUT_GIL, reason="this Python has no GIL to wait for")


def test_calls_and_states_are_exact(doctor):
    visit = doctor("""
        seen = []
        callback = CALLBACK(lambda: seen.append(None))
        parts.run_sensor(callback, 300)
        print(len(seen))
    """)
    assert (visit.ending.code, visit.ending.out) == (0, "300\n")
    (site,) = visit.own.sites
    assert (site.counts.calls, site.counts.temporary_states) == (300, 300)
    assert site.binding == "ctypes"
    assert visit.own.end == "exited"
    assert visit.own.python.startswith("{}.{}".format(*sys.version_info))
    (thread,) = (one for one in visit.own.threads if one.kind == "foreign")
    assert (thread.name, thread.counts.calls) == ("sensor", 300)
    assert 0 < site.counts.hold_ns < 1e9 * visit.own.seconds
    assert site.counts.longest_hold_ns <= site.counts.hold_ns


def test_two_native_callers_behind_one_closure_are_two_sites(doctor):
    visit = doctor("""
        callback = CALLBACK(lambda: None)
        parts.run_both(callback, 200)
        parts.run_both(callback, 50)
    """)
    by_symbol = {}
    for site in visit.own.sites:
        name = next(frame.symbol for frame in site.frames if frame.symbol.startswith("read_"))
        by_symbol[name] = by_symbol.get(name, 0) + site.counts.calls
    assert by_symbol == {"read_sensor": 250, "read_audio": 500}


def test_under_moored_run_a_thread_has_one_state(doctor):
    script = "parts.run_sensor(CALLBACK(lambda: None), 100)"
    stock, kept = doctor(script).own.total, doctor(script, "--kept").own.total
    assert (stock.calls, stock.temporary_states) == (100, 100)
    assert (kept.calls, kept.temporary_states) == (100, 1)


def test_more_threads_than_rows_are_all_counted(doctor):
    visit = doctor("parts.run_many(CALLBACK(lambda: None), 3000)")
    assert visit.own.total.calls == visit.own.total.temporary_states == 3000
    assert visit.own.threads_of_one_call >= 1_000
    assert visit.own.records_lost == 0


@needs_gil
def test_waits_are_those_for_a_busy_main(doctor):
    visit = doctor("""
        calls = []
        callback = CALLBACK(lambda: calls.append(None))
        thread = threading.Thread(target=parts.run_sensor, args=(callback, 50))
        thread.start()
        while len(calls) < 50:
            pass
        thread.join()
    """)
    assert visit.own.sees_waits
    total = visit.own.total
    # Each wait for a main thread that runs Python is about as long as the switch interval.
    assert total.wait_ns >= 20 * 4_000_000
    assert total.attach_ns >= total.wait_ns
    if visit.own.sees_holders:
        assert total.wait_for_main_ns >= total.wait_ns / 2


def test_threads_of_python_are_not_taken_for_foreign_ones(doctor):
    visit = doctor("""
        def work():
            for _ in range(100_000):
                pass
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        parts.run_sensor  # not called
    """)
    assert visit.own.total.calls == 0
    assert [one for one in visit.own.threads if one.kind == "foreign"] == []


def test_children_are_recorded_when_they_are_asked_for(doctor):
    script = """
        child = os.fork()
        parts.run_sensor(CALLBACK(lambda: None), 7 if child == 0 else 3)
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
    """
    both = doctor(script, "--subprocesses")
    assert sorted(one.total.calls for one in both.recordings) == [3, 7]
    assert both.own.total.calls == 3
    for path in both.path.parent.glob("capture*"):
        path.unlink()
    alone = doctor(script)
    assert [one.total.calls for one in alone.recordings] == [3]


def test_what_was_recorded_survives_the_end_of_the_process(doctor):
    callback = "parts.run_sensor(CALLBACK(lambda: None), 20)\n"
    for end, code, how in (
        ("os._exit(5)", 5, ("exited", "killed")),
        ("os.kill(os.getpid(), 9)", 128 + signal.SIGKILL, ("killed",)),
        ("ctypes.string_at(0)", 128 + signal.SIGSEGV, ("crashed",)),
        ("raise SystemExit(3)", 3, ("exited",)),
    ):
        visit = doctor(callback + end)
        assert visit.ending.code == code, end
        assert visit.own.total.calls == 20, end
        assert visit.own.end in how, end
        assert "20 calls" in visit.ending.err, end


def test_the_program_has_its_streams_words_and_exit_code(doctor, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import sys; print(sys.argv[1:], sys.stdin.read()); print('said', file=sys.stderr); "
        "sys.exit(9)"
    )
    ending = run_moored("doctor", script, "--words", "-o", "x", stdin="in")
    assert (ending.code, ending.out) == (9, "['--words', '-o', 'x'] in\n")
    assert ending.err.startswith("said\n")
    assert "No native thread entered Python" in ending.err


def test_its_time_can_be_limited(doctor):
    visit = doctor(
        """
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            sys.exit(4)
        """,
        "-d",
        "0.2",
    )
    assert visit.ending.code == 4
    assert visit.own.end == "exited"


def test_a_late_capture_is_read_while_the_process_runs(doctor, tmp_path: Path) -> None:
    """As it is there after a kill: the file is whole at any time."""
    visit = doctor("""
        parts.run_sensor(CALLBACK(lambda: None), 5)
        path = next(one for one in os.listdir(os.environ.get("TMPDIR", ".")) or ["."])
    """)
    raw = visit.path.read_bytes()
    for length in (len(raw) // 2, 5_000, 1_300):
        short = tmp_path / f"short{length}"
        short.write_bytes(raw[:length])
        recording = capture.read(short)
        assert recording.end == "cut short"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_place_is_refused_before_anything_runs() -> None:
    ending = run_moored("doctor", "-o", "/proc/capture", "-c", "print('ran')")
    assert (ending.code, ending.out) == (2, "")


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        ((), 2, "say what to run"),
        (("-o", "x"), 2, "say what to run"),
        (("no-such-script.py",), 2, ""),
        (("-o", "/no/such/folder/x", "-c", "pass"), 2, "no such folder"),
        (("-o", "/tmp", "-c", "pass"), 2, "it is a folder"),
        (("-d", "0", "-c", "pass"), 2, "give seconds"),
        (("--exec", "/bin/true"), 3, "nothing was recorded"),
        (("--exec", "no-such-program"), 127, "there is no program"),
        (("report", "/no/such/capture"), 2, "No such file"),
        (("report", __file__), 2, "is no capture"),
        (("compare", "--rounds", "0", "-c", "pass"), 2, "give 1 to 1000"),
        (("compare", "-c", "raise SystemExit(1)"), 1, "the program ended with 1"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, code, reason):
    ending = run_moored("doctor", *words)
    assert ending.code == code, ending.err
    assert reason in ending.err
    assert "Traceback" not in ending.err


def test_a_capture_of_a_later_version_is_refused(doctor, tmp_path: Path) -> None:
    raw = bytearray(doctor("pass").path.read_bytes())
    raw[8] = 99
    later = tmp_path / "later"
    later.write_bytes(raw)
    ending = run_moored("doctor", "report", later)
    assert ending.code == 2
    assert "version 99" in ending.err


def test_top_shows_a_process_that_runs(known_parts: Path, tmp_path: Path) -> None:
    code = (
        "import ctypes, os, sys, threading\n"
        "parts = ctypes.CDLL(os.environ['KNOWN_PARTS'])\n"
        "callback = ctypes.CFUNCTYPE(None)(lambda: None)\n"
        "threading.Thread(target=parts.run_sensor, args=(callback, 10**9), daemon=True).start()\n"
        "print(os.getpid(), flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(0)\n"
    )
    command = [sys.executable, "-m", "moored", "doctor", "-o", str(tmp_path / "x"), "-c", code]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"KNOWN_PARTS": str(known_parts)},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        ending = run_moored("doctor", "top", pid, "--interval", "0.3", "-n", "2")
        process.stdin.close()
        process.wait(HANG_S)
    assert ending.code == 0, ending.err
    assert "known_parts!read_sensor" in ending.out
    assert "temporary/s" in ending.out


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("999999999",), 2, "there is no process"),
        ((str(os.getpid()),), 3, "start it "),
        ((str(os.getpid()), "-n", "0"), 2, "1 turn or more"),
    ],
)
def test_top_says_why_it_cannot(words, code, reason):
    ending = run_moored("doctor", "top", *words)
    assert (ending.code, ending.out) == (code, "")
    assert reason in ending.err


def test_compare_runs_it_both_ways(known_parts: Path) -> None:
    code = (
        "import ctypes, os; parts = ctypes.CDLL(os.environ['KNOWN_PARTS']); "
        "parts.run_sensor(ctypes.CFUNCTYPE(None)(lambda: None), 60)"
    )
    ending = run_moored(
        "doctor", "compare", "--rounds", "1", "-c", code, KNOWN_PARTS=str(known_parts)
    )
    assert ending.code == 0, ending.err
    assert "after: moored run" in ending.out
    assert "known_parts" in ending.out
