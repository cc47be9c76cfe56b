"""The end of a foreign thread that keep_thread() keeps, without `moored run`."""

from __future__ import annotations

import pytest

THREADS = """
import ctypes, os, sys, threading, time, warnings
import moored
warnings.simplefilter("ignore")
here = threading.local()
START = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
free, holding = ctypes.CDLL(None), ctypes.PyDLL(None)
def started(start):
    'A thread that calls once, and is to be joined.'
    thread = ctypes.c_ulong()
    assert free.pthread_create(ctypes.byref(thread), None, start, None) == 0
    return thread
def called(function):
    'A callback, and what waits until it was called: a join with the GIL held would keep it out.'
    entered = threading.Event()
    def call(_):
        assert moored.keep_thread()
        function()
        entered.set()
    return START(call), entered
def until_nothing_is_kept():
    while moored.stats()["states_kept"]:
        time.sleep(0.001)
"""


@pytest.mark.parametrize("library", ["free", "holding"])
def test_each_state_is_freed_in_time_or_counted_as_late(end_of, library):
    """In time is what a thread saw done that has joined it; how often depends on the machine."""
    ending = end_of(
        THREADS
        + f"""
alive = 0
class Told:
    def __init__(self):
        global alive
        alive += 1
    def __del__(self):
        global alive
        alive -= 1
in_time = 0
for _ in range(50):
    call, entered = called(lambda: setattr(here, "told", Told()))
    thread = started(call)
    entered.wait()
    assert {library}.pthread_join(thread, None) == 0
    in_time += alive == 0
    until_nothing_is_kept()
    assert alive == 0
stats = moored.stats()
assert stats["states_freed"] == 50, stats
assert in_time >= 50 - stats["states_freed_late"], (in_time, stats)
assert {library} is holding or in_time > 0
"""
    )
    assert (ending.code, ending.err) == (0, "")


@pytest.mark.parametrize("library", ["free", "holding"])
def test_no_thread_of_ours_is_there_at_a_fork_after_the_join(end_of, library):
    """The kernel counts an ending thread for some us after the join, stock too: not each time."""
    ending = end_of(
        THREADS
        + f"""
warned = 0
for _ in range(20):
    call, entered = called(lambda: None)
    thread = started(call)
    entered.wait()
    assert {library}.pthread_join(thread, None) == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        child = os.fork()
        if child == 0:
            os._exit(0 if moored.stats()["states_kept"] == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    warned += len(caught)
assert warned < 20, warned
until_nothing_is_kept()
assert moored.stats()["states_freed"] == 20, moored.stats()
"""
    )
    assert (ending.code, ending.err) == (0, "")


def test_the_child_of_a_fork_finalises_nothing_of_other_threads(end_of):
    ending = end_of(
        THREADS
        + """
import contextvars
main = os.getpid()
variable, late = contextvars.ContextVar("variable"), contextvars.ContextVar("late")
class Told:
    def __init__(self, what):
        self.what = what
    def __del__(self):
        if os.getpid() != main:
            os.write(1, f"{self.what} in the child\\\\n".encode())
may_end = threading.Event()
def hold():
    variable.set(Told("a context variable"))
    here.told = Told("a local")
    late.set(Told("a later context variable"))
    entered.set()
    may_end.wait()
def within_a_context(_):
    # keep_thread() within a Context.run(), which must be left as it was entered
    def run():
        assert moored.keep_thread()
        hold()
    contextvars.copy_context().run(run)
entered = threading.Event()
calls = [START(within_a_context), START(lambda _: moored.keep_thread() and hold())]
threads = []
for call in calls:
    entered.clear()
    threads.append(started(call))
    entered.wait()
for leave in (os._exit, sys.exit):
    child = os.fork()
    if child == 0:
        leave(0)
    assert os.waitpid(child, 0)[1] == 0
may_end.set()
for thread in threads:
    assert free.pthread_join(thread, None) == 0
print("done")
""".replace("\\\\n", "\\n")
    )
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")


def test_without_threads_of_ours_the_next_thread_clears(end_of):
    ending = end_of(
        THREADS
        + """
import resource
alive = 0
class Told:
    def __init__(self):
        global alive
        alive += 1
    def __del__(self):
        global alive
        alive -= 1
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(200_000 + os.getpid())  # a user without other processes
resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))  # main and one native thread
def call(_):
    if moored.keep_thread():
        here.told = Told()
call = START(call)
thread = ctypes.c_ulong()
for _ in range(100):
    while free.pthread_create(ctypes.byref(thread), None, call, None) != 0:
        pass  # the kernel counts the last thread for some us more
    assert free.pthread_join(thread, None) == 0
assert alive <= 2, alive
assert moored.stats()["states_kept"] <= 2, moored.stats()
os._exit(0)
"""
    )
    assert (ending.code, ending.err) == (0, "")
