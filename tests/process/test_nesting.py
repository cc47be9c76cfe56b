"""A ctypes callback and moored on one native thread find the same state, in either order."""

from __future__ import annotations

VISITS = """
import ctypes, threading
import native_threads

here = threading.local()
visits = []

def visit():
    here.visits = getattr(here, "visits", 0) + 1
    visits.append(here.visits)
"""


def test_ctypes_inside_moored(end_of):
    ending = end_of(
        VISITS
        + """
# A plain C call lets go of the GIL; its callback takes it again, by PyGILState_Ensure.
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def through_ctypes():
    visit()
    numbers = (ctypes.c_int * 2)(2, 1)
    ctypes.CDLL(None).qsort(numbers, 2, 4, COMPARE(lambda a, b: visit() or 0))
    visit()
assert native_threads.run_once(through_ctypes)
assert visits == list(range(1, len(visits) + 1)) and len(visits) >= 3, visits
"""
    )
    assert (ending.code, ending.err) == (0, "")


def test_moored_inside_ctypes(end_of):
    ending = end_of(
        VISITS
        + """
START = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def through_moored(_):
    visit()
    native_threads.attach_and_call(visit)
    visit()
start = START(through_moored)
libc = ctypes.CDLL(None)
thread = ctypes.c_ulong()
assert libc.pthread_create(ctypes.byref(thread), None, start, None) == 0
assert libc.pthread_join(thread, None) == 0
assert visits == [1, 2, 3], visits
assert native_threads.stats()["states_made"] == 0
"""
    )
    assert (ending.code, ending.err) == (0, "")
