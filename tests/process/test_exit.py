"""How a process ends while native threads enter Python: never by a crash, never by a hang."""

from __future__ import annotations

import sysconfig

import pytest

STRATEGIES = ["temporary", "kept"]
if not sysconfig.get_config_var("Py_GIL_DISABLED"):
    STRATEGIES += ["shared", "borrowed"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exit_under_load(end_of, strategy):
    ending = end_of(f"""
        import native_threads
        native_threads.start({strategy!r}, 4, lambda: None)
        native_threads.idle_until(500)
    """)
    assert (ending.code, ending.err) == (0, "")


@pytest.mark.parametrize("strategy", ["temporary", "kept"])
def test_exit_at_once(end_of, strategy):
    ending = end_of(f"""
        import native_threads
        native_threads.start({strategy!r}, 8, lambda: None)
    """)
    assert (ending.code, ending.err) == (0, "")


def test_exit_while_callbacks_run_python_that_takes_long(end_of):
    ending = end_of("""
        import native_threads
        native_threads.start("kept", 3, lambda: sum(range(20_000)))
        native_threads.idle_until(10)
    """)
    assert (ending.code, ending.err) == (0, "")


def test_sys_exit_keeps_its_code_under_load(end_of):
    ending = end_of("""
        import sys, native_threads
        native_threads.start("kept", 4, lambda: None)
        sys.exit(7)
    """)
    assert (ending.code, ending.err) == (7, "")


def test_an_exception_under_load_ends_as_python_ends_it(end_of):
    ending = end_of("""
        import native_threads
        native_threads.start("kept", 4, lambda: None)
        raise RuntimeError("by the test")
    """)
    assert ending.code == 1
    assert ending.err.endswith("RuntimeError: by the test\n")


def test_a_call_that_never_leaves_is_waited_for_and_reported(end_of):
    ending = end_of("""
        import native_threads
        native_threads.set_bound(100)
        native_threads.get_stuck()
    """)
    assert ending.code == 0
    assert ending.err == (
        "moored: shutdown goes on although 1 native call(s) did not leave Python within 100 ms\n"
    )


@pytest.mark.parametrize("way", ["kept", "temporary", "adopted state", "reference"])
def test_a_finaliser_that_comes_too_late_ends_no_process(end_of, way):
    """Up to 3.13 CPython unwinds its thread, out of moored's own frames, which are noexcept."""
    ending = end_of(f"""
        import threading, native_threads
        native_threads.set_bound(0)
        begun = threading.Event()
        class Late:
            def __del__(self, begin=begun.set, come_too_late=native_threads.come_too_late):
                begin()
                come_too_late()
        mine = threading.local()
        def make():
            if {way!r} == "reference":
                return Late()
            mine.late = Late()
        native_threads.take_along({way!r}, make)
        begun.wait()
    """)
    assert ending.code == 0, ending.err
    assert "terminate" not in ending.err


def test_atexit_callbacks_registered_first_run_when_native_threads_are_refused(end_of):
    ending = end_of("""
        import atexit
        @atexit.register
        def last():
            print(native_threads.run_once(lambda: None))
        import native_threads
        @atexit.register
        def first():
            print(native_threads.run_once(lambda: None))
    """)
    assert (ending.code, ending.out, ending.err) == (0, "True\nFalse\n", "")


def test_finalisers_of_a_module_may_still_ask(end_of):
    ending = end_of("""
        import native_threads
        class Late:
            def __init__(self):
                self.run_once = native_threads.run_once
            def __del__(self):
                print(self.run_once(None))
        late = Late()
    """)
    assert (ending.code, ending.out, ending.err) == (0, "False\n", "")


def test_fork_under_load_leaves_the_child_able_to_attach_and_to_exit(end_of):
    ending = end_of("""
        import os, sys, warnings, native_threads
        warnings.simplefilter("ignore")  # 3.12 and later warn of any fork with threads
        native_threads.start("kept", 4, lambda: None)
        native_threads.idle_until(100)
        child = os.fork()
        if child == 0:
            attached = native_threads.run_once(lambda: None)
            kept = native_threads.stats()["states_kept"]
            sys.exit(3 if attached and kept == 0 else 4)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert (ending.code, ending.out, ending.err) == (0, "3\n", "")


def test_fork_inside_a_callback_gives_the_child_its_state(end_of):
    ending = end_of("""
        import os, warnings, native_threads
        warnings.simplefilter("ignore")
        def fork():
            child = os.fork()
            if child == 0:
                os._exit(5 if native_threads.stats()["states_forgotten"] == 1 else 6)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        native_threads.run_once(fork)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "5\n", "")


def test_os_exit_under_load(end_of):
    ending = end_of("""
        import os, native_threads
        native_threads.start("kept", 4, lambda: None)
        native_threads.idle_until(100)
        os._exit(9)
    """)
    assert (ending.code, ending.err) == (9, "")


def test_threads_that_end_free_their_states(end_of):
    ending = end_of("""
        import native_threads
        for _ in range(100):
            native_threads.run_once(lambda: None)
        counts = native_threads.stats()
        print(counts["states_made"], counts["states_freed"], counts["states_kept"])
    """)
    assert (ending.code, ending.out) == (0, "100 100 0\n")
