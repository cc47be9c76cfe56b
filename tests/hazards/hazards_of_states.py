"""Hazards of thread states: whose they are, who frees them, what they carry."""

from __future__ import annotations

from hazard import Hazard

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
            say(f"the state is freed {'once' if native.counters()['freed'] == 1 else 'or not'}")
        """,
        must_show="the state is freed once",
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
    ),
    Hazard(
        "9",
        "state-made-elsewhere",
        "A state that `PyThreadState_New` made on another thread is invisible to PyGILState",
        stock="native.use_state_made_elsewhere('stock')",
        moored="native.use_state_made_elsewhere('moored')",
        must_show="PyGILState knows the state; enters again",
    ),
]
