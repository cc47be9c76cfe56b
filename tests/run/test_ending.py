"""How a program under `moored run` ends: as it ends without."""

from __future__ import annotations

import signal
import subprocess

import pytest
from programs import LAUNCHER
from support.limits import HANG_S

HAMMER = """
    caller.free.forgive_late_crashes(7)
    entered = threading.Event()
    caller.free.hammer(caller.immortal(entered.set), 3)
    entered.wait()
"""
ROUNDS = 15


def is_quiet_but_for_late_threads(err: str) -> bool:
    """Tell whether nothing was printed that CPython does not print by itself.

    A thread that was paused on its way into PyGILState_Ensure since before the end finds no slot
    for its state after it, which is a fatal error up to 3.14, with moored and without.
    """
    return err == "" or "gilstate_tss_set" in err


@pytest.mark.parametrize("options", [[], ["--fresh"]], ids=["kept", "fresh"])
def test_exit_while_native_threads_call_back(stock, kept, options):
    script = HAMMER + "    sys.exit(7)\n"
    assert stock(script).code == 7
    for _ in range(ROUNDS):
        ending = kept(script, *options)
        assert ending.code == 7
        # With --fresh no call is redirected; a late one may end in CPython's fatal error.
        assert options or is_quiet_but_for_late_threads(ending.err)


def test_an_exception_while_native_threads_call_back(kept):
    script = HAMMER.replace("(7)", "(1)") + "    raise RuntimeError('by the test')\n"
    ending = kept(script)
    assert ending.code == 1
    assert ending.err.endswith("RuntimeError: by the test\n")


def test_exit_while_threads_come_and_go(kept):
    for _ in range(ROUNDS):
        ending = kept("""
            caller.free.forgive_late_crashes(7)
            entered = threading.Event()
            call = caller.immortal(entered.set)
            threading.Thread(
                target=caller.free.call_on_threads, args=(call, 10**9, 2), daemon=True
            ).start()
            entered.wait()
            sys.exit(7)
        """)
        assert ending.code == 7
        assert is_quiet_but_for_late_threads(ending.err)


def test_exit_with_a_native_thread_that_idles(kept):
    ending = kept("""
        entered = threading.Event()
        pause = ctypes.CDLL(None).pause
        def enter_and_stay():
            entered.set()
            pause()
        caller.free.start_thread(caller.immortal(enter_and_stay), 1)
        entered.wait()
        sys.exit(3)
    """)
    assert (ending.code, ending.err) == (3, "")
    assert ending.row["states_kept"] == 1


@pytest.mark.parametrize("code", [0, 1, 3, 120, 255])
def test_the_exit_code_is_the_programs(moored_run, code):
    assert moored_run("-c", f"import sys; sys.exit({code})").code == code


def test_a_signal_ends_it_as_it_ends_the_program(moored_run):
    ending = moored_run("-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert ending.code == -signal.SIGTERM


def test_it_has_the_process_number_that_was_started(environment):
    with subprocess.Popen(
        [LAUNCHER, "run", "-c", "import os; print(os.getpid())"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        out, _ = process.communicate(timeout=HANG_S)
    assert int(out) == process.pid


def test_stdin_passes_through(moored_run):
    assert moored_run("-c", "print(input()[::-1])", stdin="desserts\n").out == "stressed\n"
    assert moored_run("-", "word", stdin="import sys; print(sys.argv)").out == "['-', 'word']\n"


def test_os_exit(kept):
    ending = kept(HAMMER + "    os._exit(9)\n")
    assert (ending.code, ending.err) == (9, "")


def test_atexit_callbacks_still_run(kept):
    script = HAMMER.replace("(7)", "(0)")
    ending = kept(script + "    import atexit; atexit.register(print, 'last', flush=True)\n")
    assert (ending.code, ending.out) == (0, "last\n")
