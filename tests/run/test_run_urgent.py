"""`moored run --urgent`: native threads get the GIL from a main thread that runs Python.

Main's switch interval is a thousand seconds: where nothing asks it, such a test does not end.
"""

from __future__ import annotations

import sysconfig

import pytest

pytestmark = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this Python has no GIL to ask for"
)

BUSY_MAIN = """
    entered = []
    enter = CALLBACK(lambda: entered.append(None))
    def run_until_entered(count):
        while len(entered) < count:
            pass
"""
STAYS_BUSY = (
    BUSY_MAIN
    + """
    caller.free.start_thread(enter, 100)
    sys.setswitchinterval(1000)
    run_until_entered(100)
    sys.setswitchinterval(0.005)
    caller.free.join_started()
    print(len(entered))
"""
)


def test_callbacks_come_while_main_runs_python(kept):
    ending = kept(STAYS_BUSY, "--urgent=100%")
    assert (ending.code, ending.out, ending.err) == (0, "100\n", "")
    assert ending.row["urgent_requests"] >= 1
    assert ending.row["urgent_requests_denied"] == 0
    assert ending.row["states_adopted"] == ending.row["states_freed"] == 1


def test_over_the_budget_they_wait_as_ever(kept):
    ending = kept(
        BUSY_MAIN
        + """
    caller.free.start_thread(enter, 3)
    run_until_entered(3)
    caller.free.join_started()
    print(len(entered))
    """,
        "--urgent=0",
    )
    assert (ending.code, ending.out, ending.err) == (0, "3\n", "")
    assert ending.row["urgent_requests"] == 0
    assert ending.row["urgent_requests_denied"] >= 1


def test_without_the_option_nothing_is_asked(kept):
    ending = kept("""
    caller.free.call_on_a_thread(CALLBACK(visit), 3)
    print(visits)
    """)
    assert (ending.row["urgent_requests"], ending.row["urgent_requests_denied"]) == (0, 0)


def test_threads_of_python_stay_as_they_are(kept):
    ending = kept(
        """
    def work():
        for _ in range(300_000):
            pass
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print("done")
    """,
        "--urgent",
    )
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")
    assert ending.row["urgent_requests"] == 0


def test_threads_that_end_while_main_is_busy_leave_nothing_behind(kept):
    ending = kept(
        BUSY_MAIN
        + """
    thread = threading.Thread(target=caller.free.call_on_threads, args=(enter, 200, 2))
    thread.start()
    run_until_entered(400)
    thread.join()
    while len(sys._current_frames()) > 1:
        pass  # the last ones are on their way
    print(len(entered))
    """,
        "--urgent=100%",
    )
    assert (ending.code, ending.out, ending.err) == (0, "400\n", "")
    assert ending.row["states_adopted"] == ending.row["states_freed"] == 200


def test_the_report_has_it(moored_run):
    ending = moored_run("--urgent", "--stats", "-c", "pass")
    assert "busy threads asked for the GIL" in ending.err
    ending = moored_run("--stats", "-c", "pass")
    assert "busy threads" not in ending.err


def test_children_are_urgent_too_unless_they_are_left_alone(moored_run):
    show = (
        "import os, subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import os; print(os.environ.get(\"MOORED_RUN_URGENT\"))'])"
    )
    assert moored_run("--urgent=25%", "-c", show).out == "0.250000\n"
    assert moored_run("--urgent=25%", "--no-children", "-c", show).out == "None\n"


@pytest.mark.parametrize("given", ["much", "", "-1", "101%", "1.5", "nan", "10%%", "0x"])
def test_a_budget_that_is_no_share_is_refused(moored_run, given):
    ending = moored_run(f"--urgent={given}", "-c", "pass")
    assert ending.code == 2
    assert ending.err.count("\n") == 1
    assert "a share of a busy thread's time" in ending.err


@pytest.mark.parametrize("option", ["--fresh", "--cache-only"])
def test_it_does_not_go_with_what_leaves_the_hooks_out(moored_run, option):
    ending = moored_run("--urgent", option, "-c", "pass")
    assert ending.code == 2
    assert ending.err.count("\n") == 1


def test_a_thread_that_ends_is_still_let_go_by_a_join_with_the_gil_held(kept):
    """The wait for the GIL that an ending thread can give up stands behind the urgent one."""
    ending = kept(
        """
    left = []
    class Local(threading.local):
        pass
    here = Local()
    class Left:
        def __del__(self):
            left.append(None)
    called = threading.Semaphore(0)
    def keep():
        here.left = Left()
        called.release()
    keep_it = CALLBACK(keep)
    sys.setswitchinterval(1000)
    for _ in range(100):
        caller.free.start_thread(keep_it, 1)
        called.acquire()
        for _ in range(20_000):
            pass  # meanwhile the thread comes to its end, and wants the GIL for that
        caller.holding.join_started()
    print(len(left))
    """,
        "--urgent=100%",
    )
    assert (ending.code, ending.out, ending.err) == (0, "100\n", "")
