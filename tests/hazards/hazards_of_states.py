"""Hazards of thread states: which thread has them, what frees them, what they carry."""

from __future__ import annotations

import importlib.util

from hazard import ALL, Hazard

VISIT = """
here = threading.local()
visits = []
def visit():
    visits.append(hasattr(here, "mark"))
    here.mark = True
"""
KEPT_OF = "say(f'locals kept in {sum(visits)} of {len(visits) - 1} later calls')"

DUMMIES = """
objects, before = [], len(threading._active)
native.crowd(way, lambda: objects.append(threading.current_thread()), 1, 10)
seen = len(set(map(id, objects)))
say(f"{seen} object{'s' * (seen > 1)} in {len(objects)} calls")
say(f"{len(threading._active) - before} left when the thread has ended")
"""

RECURSE = """
deep = []
for _ in range(1_000_000):
    deep = [deep]
def recurse():
    try:
        repr(deep)
    except RecursionError:
        native.say("RecursionError")
    os._exit(0)  # deep is never taken apart
"""


def without_pybind11() -> str:
    return "" if importlib.util.find_spec("pybind11") else "pybind11 is not installed"


HAZARDS = [
    Hazard(
        "6",
        "finaliser-enters-again",
        "A finaliser that enters Python while the state is cleared has the state deleted twice",
        stock="""
            here = threading.local()
            class Nested:
                def __del__(self):
                    native.nested()
            def fill():
                here.nested = Nested()
            native.crowd("stock", fill, 1, 1)
            say("the state is freed once")
        """,
        moored="""
            here = threading.local()
            class Nested:
                def __del__(self):
                    native.nested()
            def fill():
                here.nested = Nested()
            native.crowd("moored", fill, 1, 1)
            say(f"the state is freed {'once' if native.stats()['freed'] == 1 else 'or not'}")
        """,
        must_show="the state is freed once",
        # Which way a state is deleted twice, and from which 3.12 on no more, varies.
        stock_shows={ALL: None, (3, 13): "the state is freed once"},
        evidence=("python/cpython#119753", "pybind/pybind11#5828", "DataDog/dd-trace-py#19445"),
    ),
    Hazard(
        "7",
        "deleting-anothers-state",
        "Deleting the state of another thread takes the PyGILState binding of the thread that "
        "deletes",
        stock="native.delete_state_of_ended_thread('stock')",
        moored="native.delete_state_of_ended_thread('moored')",
        must_show="this thread is still known to PyGILState; enters again",
        stock_shows={
            ALL: "this thread is still known to PyGILState; enters again",
            (3, 12): "PyGILState has lost this thread; hangs",
            (3, 13): "PyGILState has lost this thread; fatal error: _PyThreadState_Attach: "
            "non-NULL old thread state; dies by SIGABRT",
        },
    ),
    Hazard(
        "9",
        "state-made-elsewhere",
        "A state that `PyThreadState_New` made on another thread is invisible to PyGILState",
        stock="native.use_state_made_elsewhere('stock')",
        moored="native.use_state_made_elsewhere('moored')",
        must_show="PyGILState knows the state; enters again",
        stock_shows={
            ALL: "PyGILState does not know it; hangs",
            (3, 12): "PyGILState knows the state; enters again",
        },
    ),
    Hazard(
        "10",
        "release-on-another-thread",
        "`PyGILState_Ensure` and `PyGILState_Release` must pair on one thread",
        stock="native.release_elsewhere('stock')",
        moored="native.release_elsewhere('moored')",
        must_show="an exception ends the attachment on its thread; enters again",
        stock_shows="fatal error: PyGILState_Release: auto-releasing thread-state, but no "
        "thread-state for this thread; dies by SIGABRT",
        evidence=("ray-project/ray#52575",),
    ),
    Hazard(
        "11",
        "unchecked-get-is-the-processs",
        "`_PyThreadState_UncheckedGet` answers for the process, not for the thread",
        stock="native.ask_a_stranger('unchecked_get')",
        moored="""
            native.ask_a_stranger("moored")
            native.crowd("moored", lambda: say("attaches in its turn"), 1, 1)
        """,
        must_show="knows that it is not attached; attaches in its turn",
        stock_shows={ALL: "shows the state of another thread", (3, 12): "shows no state"},
        evidence=("wjakob/nanobind#1418",),
    ),
    Hazard(
        "12",
        "check-after-a-subinterpreter",
        "`PyGILState_Check` is always 1 once a subinterpreter has existed",
        stock="""
            native.have_a_subinterpreter()
            native.ask_a_stranger("check")
        """,
        moored="""
            native.have_a_subinterpreter()
            native.ask_a_stranger("moored")
            native.crowd("moored", lambda: say("attaches to the main interpreter: "
                         + str(native.in_main_interpreter())), 1, 1)
        """,
        must_show="knows that it is not attached; attaches to the main interpreter: True",
        stock_shows="PyGILState_Check() says that a stranger is attached",
        evidence=("python/cpython#59956",),
    ),
    Hazard(
        "13",
        "pybind11s-own-pointer",
        "pybind11 keeps a thread pointer of its own, and deletes the state when its count is 0",
        stock=f"{VISIT}native.crowd('pybind11', visit, 1, 100)\n{KEPT_OF}",
        moored=f"""{VISIT}native.crowd('both', visit, 1, 100)\n{KEPT_OF}
stats = native.stats()
say(f"{{stats['made']}} state made, {{stats['freed']}} freed")
""",
        must_show="locals kept in 99 of 99 later calls; 1 state made, 1 freed",
        stock_shows="locals kept in 0 of 99 later calls",
        evidence=("pybind/pybind11#2888", "pybind/pybind11#5870"),
        not_run=without_pybind11,
    ),
    Hazard(
        "16",
        "what-calls-leave-behind",
        "What a call leaves on its thread (locals, an exception that is set) is lost with a "
        "temporary state, and met by the next call with a kept one",
        stock=f"""{VISIT}native.crowd('stock', visit, 1, 100)\n{KEPT_OF}
native.leave_an_error("stock")
""",
        moored=f"""{VISIT}native.crowd('moored', visit, 1, 100)\n{KEPT_OF}
import sys
sys.unraisablehook = lambda report: say("an exception left set is reported")
native.leave_an_error("moored")
visits.clear()
native.crowd("fresh", visit, 1, 100)
say("by strategy::temporary " + {KEPT_OF[4:-1]})
""",
        must_show="locals kept in 99 of 99 later calls; an exception left set is reported; "
        "the next call does not meet it; by strategy::temporary locals kept in 0 of 99 later calls",
        stock_shows="locals kept in 0 of 99 later calls; the next call does not meet it",
        evidence=("swig/swig#3503",),
    ),
    Hazard(
        "17",
        "dummy-threads",
        "`threading.current_thread()` makes a dummy for a native thread, which stays in "
        "`threading._active` up to 3.12 and goes with the state later",
        stock=DUMMIES,
        moored=DUMMIES,
        must_show={
            ALL: "1 object in 10 calls; 1 left when the thread has ended",
            (3, 13): "1 object in 10 calls; 0 left when the thread has ended",
        },
        stock_shows={
            ALL: "1 object in 10 calls; 1 left when the thread has ended",
            (3, 13): "10 objects in 10 calls; 0 left when the thread has ended",
        },
        evidence=("python/cpython#114423",),
    ),
    Hazard(
        "21",
        "stack-bounds-of-another-thread",
        "A state remembers the C stack of the thread that used it first; elsewhere unbounded "
        "recursion is not noticed",
        stock=f"{RECURSE}native.call_on_second_user(recurse)",
        moored=f"{RECURSE}native.crowd('moored', recurse, 1, 1)",
        must_show="RecursionError",
        stock_shows={ALL: "RecursionError", (3, 14): "dies by SIGSEGV"},
        evidence=("python/cpython#157519", "nv-legate/legate#984"),
    ),
]
