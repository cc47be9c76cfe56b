"""install(urgent=True): callbacks get the GIL from a main thread that runs Python.

Main never lets go by itself here: its switch interval is a thousand seconds, and it runs Python
until a callback has come. Where nothing asks it, such a test does not end.
"""

from __future__ import annotations

import sysconfig

import pytest

import moored

WITHOUT_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
needs_gil = pytest.mark.skipif(WITHOUT_GIL, reason="this Python has no GIL to ask for")

START = """
    import sys, moored, threading, time
    from foreign_threads import on_thread_that_stays
    moored.install(urgent=True)
    moored.set_urgent_budget(1)
    seen = []
    def run_until_called(callback, calls):
        def call():
            on_thread_that_stays(callback, calls)
        thread = threading.Thread(target=call)
        thread.start()
        while not seen:
            pass  # the first call of a thread is an ordinary one
        sys.setswitchinterval(1000)
        while len(seen) < calls:
            pass
        sys.setswitchinterval(0.005)
        thread.join()
"""


@needs_gil
def test_a_decorated_callback_comes_while_main_runs_python(run_script) -> None:
    run_script(
        START
        + """
    @moored.keeps_thread(urgent=True)
    def callback():
        time.sleep(0.001)  # main takes the GIL, and has it when the thread comes back
        seen.append(None)
    run_until_called(callback, 50)
    assert moored.stats()["urgent_requests"] >= 1, moored.stats()
    """
    )


@needs_gil
def test_a_thread_that_says_so_itself_is_urgent_from_then_on(run_script) -> None:
    run_script(
        START
        + """
    def callback():
        assert moored.keep_thread(urgent=True) is True
        time.sleep(0.001)
        seen.append(None)
    run_until_called(callback, 50)
    """
    )


@needs_gil
def test_threads_that_did_not_ask_for_it_are_not_urgent(run_script) -> None:
    run_script("""
        import moored, threading
        from foreign_threads import on_foreign_threads
        moored.install(urgent=True)
        def work():
            for _ in range(200_000):
                pass
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        on_foreign_threads(moored.keeps_thread(work), calls=2)
        for thread in threads:
            thread.join()
        assert moored.stats()["urgent_requests"] == 0, moored.stats()
    """)


@needs_gil
def test_a_budget_of_nothing_makes_them_ordinary(run_script) -> None:
    run_script("""
        import moored, threading, time
        from foreign_threads import on_thread_that_stays
        moored.install(urgent=True)
        moored.set_urgent_budget(0)
        seen = []
        @moored.keeps_thread(urgent=True)
        def callback():
            time.sleep(0.001)  # lets main take the GIL
            seen.append(None)
        thread = threading.Thread(target=on_thread_that_stays, args=(callback, 20))
        thread.start()
        while moored.stats()["urgent_requests_denied"] == 0:
            pass
        counted = moored.stats()
        assert counted["urgent_requests"] == 0, counted
        thread.join()
    """)


@needs_gil
def test_condition_variables_of_others_are_not_touched(run_script) -> None:
    """Neither Python's own nor those of a library: the interpreter's reference alone leads on."""
    run_script("""
        import ctypes, moored
        wait = ctypes.CDLL(None).pthread_cond_timedwait
        before = ctypes.cast(wait, ctypes.c_void_p).value
        moored.install(urgent=True)
        again = ctypes.CDLL(None).pthread_cond_timedwait
        assert ctypes.cast(again, ctypes.c_void_p).value == before
        mutex, condition = (ctypes.c_byte * 64)(), (ctypes.c_byte * 64)()
        due = (ctypes.c_long * 2)(1, 0)  # long past
        own = ctypes.CDLL(None)
        own.pthread_mutex_lock(mutex)
        results = []
        @moored.keeps_thread(urgent=True)
        def callback():
            results.append(own.pthread_cond_timedwait(condition, mutex, due))
        from foreign_threads import on_foreign_threads
        on_foreign_threads(callback, calls=3)
        import errno
        assert results == [errno.ETIMEDOUT] * 3, results
    """)


@needs_gil
def test_installing_again_and_in_a_fork_is_installing_once(run_script) -> None:
    run_script(
        START
        + """
    import os
    moored.install(urgent=True)
    child = os.fork()
    @moored.keeps_thread(urgent=True)
    def callback():
        time.sleep(0.001)  # main takes the GIL, and has it when the thread comes back
        seen.append(None)
    run_until_called(callback, 20)
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    )


@pytest.mark.skipif(not WITHOUT_GIL, reason="this Python has a GIL")
def test_without_a_gil_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="this Python has no GIL"):
        moored.install(urgent=True)


def test_where_the_table_cannot_be_written_the_reason_is_said(run_script) -> None:
    """A sandbox that forbids mprotect, or a table that is writable anyway: one of the two."""
    run_script("""
        import ctypes, ctypes.util, sys, sysconfig
        import moored
        libc = ctypes.CDLL(None, use_errno=True)
        class Filter(ctypes.Structure):
            _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte),
                        ("k", ctypes.c_uint32)]
        class Program(ctypes.Structure):
            _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter))]
        import platform
        mprotect = {"x86_64": 10, "aarch64": 226}[platform.machine()]
        rules = (Filter * 4)(
            Filter(0x20, 0, 0, 0),               # the number of the call
            Filter(0x15, 0, 1, mprotect),
            Filter(0x06, 0, 0, 0x00050000 | 1),  # EPERM
            Filter(0x06, 0, 0, 0x7fff0000))      # all others are allowed
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        if libc.prctl(22, 2, ctypes.byref(Program(4, rules)), 0, 0) != 0:
            print("skipped: no seccomp here")
            sys.exit(0)
        try:
            moored.install(urgent=True)
        except RuntimeError as error:
            assert "cannot work here" in str(error), error
            assert "has no GIL" in str(error) or "be written" in str(error), error
        import warnings
        warnings.simplefilter("ignore")  # 3.10 has no chunks to cache
        assert moored.install() is (sys.version_info >= (3, 11))
    """)


@pytest.mark.parametrize("given", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_budget_that_is_no_share_is_refused(given: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        moored.set_urgent_budget(given)


def test_a_budget_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError):
        moored.set_urgent_budget("much")  # type: ignore[arg-type]


def test_keeps_thread_takes_it_with_and_without_the_callback() -> None:
    def callback(number: int) -> int:
        return number + 1

    for decorated in (
        moored.keeps_thread(callback, urgent=True),
        moored.keeps_thread(urgent=True)(callback),
        moored.keeps_thread(urgent=False)(callback),
        moored.keeps_thread(callback),
    ):
        assert decorated(1) == 2
        assert decorated.__name__ == "callback"
    with pytest.raises(TypeError, match="needs something callable"):
        moored.keeps_thread(urgent=True)(1)  # type: ignore[type-var]
