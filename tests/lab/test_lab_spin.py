"""The library that spins: its early returns are legal, and no real wait is broken by it."""

import json
import os
import sys

import pytest
from support.processes import Ending, finish, run_moored

from moored_lab.wakeup import spin
from moored_lab.wakeup.options import BadOption, Options


@pytest.fixture
def spinning():
    """Run a Python program with the library preloaded; returns what it printed."""

    def run(program: str, spin_us: str = "200") -> str:
        env = {**os.environ, **spin.environment(0), "MOORED_SPIN_US": spin_us}
        done = finish(sys.executable, "-c", program, env=env)
        assert done.code == 0, done.err
        return done.out

    return run


# The wrapper is found by ctypes as by any caller: it comes first in the process.
CONDITION = """
import ctypes, errno, json, threading, time

libc = ctypes.CDLL(None)

class timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]

def after(seconds):
    at = time.time() + seconds
    return ctypes.byref(timespec(int(at), int(at % 1 * 1e9)))

def fresh():
    cond, mutex = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
    assert libc.pthread_cond_init(cond, None) == 0
    assert libc.pthread_mutex_init(mutex, None) == 0
    return cond, mutex
"""


def test_a_wait_returns_early_once_and_then_waits_until_its_deadline(spinning):
    program = """
cond, mutex = fresh()
libc.pthread_mutex_lock(mutex)
codes, started = [], time.monotonic()
deadline = after(0.2)
for _ in range(2):
    codes.append(libc.pthread_cond_timedwait(cond, mutex, deadline))
took = time.monotonic() - started
held = libc.pthread_mutex_trylock(mutex) == errno.EBUSY
print(json.dumps([[errno.errorcode.get(code, code) for code in codes], took >= 0.19, held]))
"""
    assert json.loads(spinning(CONDITION + program)) == [[0, "ETIMEDOUT"], True, True]


def test_without_a_spin_the_first_wait_is_the_real_one(spinning):
    program = """
cond, mutex = fresh()
libc.pthread_mutex_lock(mutex)
print(libc.pthread_cond_timedwait(cond, mutex, after(0.05)) == errno.ETIMEDOUT)
"""
    assert spinning(CONDITION + program, "0").strip() == "True"


@pytest.mark.parametrize("nonsense", ["", "soon", "-5", "20us", "99999999999999999999"])
def test_a_variable_that_is_no_number_means_no_spin(spinning, nonsense):
    program = """
cond, mutex = fresh()
libc.pthread_mutex_lock(mutex)
print(libc.pthread_cond_timedwait(cond, mutex, after(0.02)) == errno.ETIMEDOUT)
"""
    assert spinning(CONDITION + program, nonsense).strip() == "True"


def test_an_invalid_deadline_is_refused_as_ever(spinning):
    program = """
cond, mutex = fresh()
libc.pthread_mutex_lock(mutex)
wrong = ctypes.byref(timespec(0, 2_000_000_000))
print(libc.pthread_cond_timedwait(cond, mutex, wrong) == errno.EINVAL)
"""
    assert spinning(CONDITION + program).strip() == "True"


@pytest.mark.parametrize("wake", ["signal", "broadcast"])
def test_no_wakeup_is_missed_with_or_without_a_spin(spinning, wake):
    # Ping-pong over one predicate: a single missed wake-up would leave both sides waiting.
    program = f"""
cond, mutex = fresh()
turns, turn = 2000, [0]

def play(mine):
    while True:
        libc.pthread_mutex_lock(mutex)
        while turn[0] < turns and turn[0] % 2 != mine:
            libc.pthread_cond_timedwait(cond, mutex, after(3600))
        over = turn[0] >= turns
        turn[0] += not over
        libc.pthread_cond_{wake}(cond)
        libc.pthread_mutex_unlock(mutex)
        if over:
            return

other = threading.Thread(target=play, args=(1,))
other.start()
play(0)
other.join()
print(turn[0])
"""
    assert spinning(CONDITION + program, "50").strip() == "2000"


def test_a_storm_of_signals_does_not_hide_a_deadline(spinning):
    program = """
cond, mutex = fresh()
over = threading.Event()

def storm():
    while not over.is_set():
        libc.pthread_cond_signal(cond)

threads = [threading.Thread(target=storm) for _ in range(2)]
for thread in threads:
    thread.start()
libc.pthread_mutex_lock(mutex)
deadline, code, calls = after(-1), 0, 0
while code == 0 and calls < 100_000:
    code = libc.pthread_cond_timedwait(cond, mutex, deadline)
    calls += 1
over.set()
for thread in threads:
    thread.join()
print(errno.errorcode[code])
"""
    assert spinning(CONDITION + program).strip() == "ETIMEDOUT"


def test_pythons_own_waits_and_the_gil_stay_right(spinning):
    program = """
import queue, sys, threading, time

sys.setswitchinterval(1e-4)
over = threading.Event()

def compute():
    while not over.is_set():
        sum(range(1000))

workers = [threading.Thread(target=compute) for _ in range(2)]
for worker in workers:
    worker.start()

started = time.monotonic()
try:
    queue.Queue().get(timeout=0.1)
except queue.Empty:
    assert time.monotonic() - started >= 0.1
condition = threading.Condition()
with condition:
    started = time.monotonic()
    assert not condition.wait(timeout=0.1)
    assert time.monotonic() - started >= 0.1
tasks, answers = queue.Queue(), queue.Queue()

def echo():
    while (task := tasks.get(timeout=200)) is not None:
        answers.put(task)

echoing = threading.Thread(target=echo)
echoing.start()
for number in range(200):
    tasks.put(number)
    assert answers.get(timeout=200) == number
tasks.put(None)
echoing.join()
over.set()
for worker in workers:
    worker.join()
print("right")
"""
    assert spinning(program, "1000").strip() == "right"


def test_spins_are_read_with_zero_among_them():
    assert spin.spins_in("100, 20", "--spins") == (0, 20, 100)


@pytest.mark.parametrize("text", ["soon", "-5", "20us", "1.5", "100001", "²"])
def test_a_spin_that_is_none_is_refused(text):
    with pytest.raises(BadOption, match="--spins"):
        spin.spins_in(text, "--spins")


def _lab_spin(*words: str, **variables: str) -> Ending:
    return run_moored("lab", "spin", "--no-chart", *words, env={**os.environ, **variables})


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["--spins", "soon"], {}, "--spins 'soon'"),
        ([], {"MOORED_SPIN_US": "soon"}, "MOORED_SPIN_US 'soon'"),
        (["--modes", "kpet"], {}, "kept"),
        (["--json", "/no/such/place/spin.json"], {}, "/no/such/place"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, variables, said):
    done = _lab_spin(*words, **variables)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_rows_compare_every_spin_with_none_of_the_same_round(monkeypatch):
    class Round:
        imbalance, interrupted = None, False

        def __init__(self, options: Options) -> None:
            spun = int(options.env["MOORED_SPIN_US"])
            self.rows = [
                {
                    "mode": mode,
                    "process_cpu_percent": 30.0 + spun / 100,
                    "latency_p50_us": 150.0,
                    "latency_p99_us": None,
                    "delivered": 10,
                    "lost": 0,
                    "refused": 0,
                }
                for mode in options.modes
            ]

    asked: list[Options] = []

    def run(options: Options, progress: object) -> Round:
        asked.append(options)
        return Round(options)

    monkeypatch.setattr(spin.wakeup, "run", run)
    monkeypatch.setattr(spin, "library", lambda: "libmoored_spin.so")
    rows = spin.run(Options(modes=("temporary", "kept"), repeat=2), (0, 1000))
    assert len(rows) == 2 * 2 * 2
    assert {row["change_points"] for row in rows if row["spin_us"] == 0} == {0.0}
    assert {row["change_points"] for row in rows if row["spin_us"] == 1000} == {10.0}
    assert all(row["delivered"] == 20 and row["latency_p99_us"] is None for row in rows)
    assert [options.main_busy > 0 for options in asked] == 2 * [False, False, True, True]
    assert "temporary +10.0 points" in spin.verdict(rows)


def test_the_server_runs_with_a_spin_and_loses_nothing(tmp_path):
    path = tmp_path / "spin.json"
    done = _lab_spin(
        *("--spins", "0,100", "--modes", "kept", "--rate", "500", "--seconds", "0.4"),
        *("--repeat", "1", "--json", str(path)),
    )
    if done.code == 3:
        pytest.skip(done.err)
    assert done.code == 0, done.err
    rows = json.loads(path.read_text())["rows"]
    assert [row["spin_us"] for row in rows] == [0, 100, 0, 100]
    assert all(row["delivered"] > 0 and row["lost"] == row["refused"] == 0 for row in rows)
