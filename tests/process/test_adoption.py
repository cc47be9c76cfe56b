"""States that one copy of moored adopts on threads where another copy, or cffi, keeps them too."""

from __future__ import annotations

WAIT = """
import time
def until_nothing_is_kept():
    while moored.stats()["states_kept"]:
        time.sleep(0.001)  # lets go of the GIL; a state that stays is a test that runs out of time
"""


def test_a_thread_that_another_extension_keeps(end_of):
    ending = end_of(
        WAIT
        + """
import sys
import moored, native_threads
for _ in range(100):
    native_threads.run_once(lambda: moored.keep_thread() or sys.exit("not kept"))
until_nothing_is_kept()
stats, theirs = moored.stats(), native_threads.stats()
assert stats["states_adopted"] == stats["states_freed"] == 100, stats
assert theirs["states_made"] == theirs["states_freed"] == 100, theirs
assert len(sys._current_frames()) == 1
"""
    )
    assert (ending.code, ending.err) == (0, "")


def test_locals_outlive_the_other_extensions_keeping(end_of):
    ending = end_of(
        WAIT
        + """
import threading
import moored, native_threads
finalised = []
class Farewell:
    def __del__(self):
        finalised.append(threading.get_ident())
here = threading.local()
def callback():
    moored.keep_thread()
    here.farewell = Farewell()
native_threads.run_once(callback)
until_nothing_is_kept()
assert len(finalised) == 1, finalised
"""
    )
    assert (ending.code, ending.err) == (0, "")


def test_exit_while_threads_end_and_hand_over_their_states(end_of):
    for _ in range(5):
        ending = end_of("""
            import ctypes, time
            import moored

            kept = []
            libc = ctypes.CDLL(None)
            start = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(
                lambda _: kept.append(moored.keep_thread())
            )
            detached = (ctypes.c_char * 64)()
            assert libc.pthread_attr_init(detached) == 0
            assert libc.pthread_attr_setdetachstate(detached, 1) == 0
            thread = ctypes.c_ulong()
            for _ in range(50):
                assert libc.pthread_create(ctypes.byref(thread), detached, start, None) == 0
            while len(kept) < 50:  # all have been in Python, none need have ended
                time.sleep(0.001)
            assert all(kept)
        """)
        assert (ending.code, ending.err) == (0, "")
