"""Hazards of an interpreter that ends: shutdown, and the child of a fork."""

from __future__ import annotations

from hazard import ALL, OVERWRITE_FREED, Hazard, from_version

REFUSED = "refused: the Python interpreter is shutting down"
ENDED = "the thread is ended in PyGILState_Ensure"
HANGS = "the thread hangs in PyGILState_Ensure"
# 3.13.8 made threads that come too late hang, 3.14 lets them in, 3.15 makes them hang again.
HANG_SINCE = (3, 13, 8)
ENTERS = "enters a half torn-down interpreter: import fails"

HAZARDS = [
    Hazard(
        "1",
        "late-attach-in-noexcept",
        "A thread that attaches during finalisation is ended by a forced unwind, which in a "
        "`noexcept` function or a destructor ends the process",
        stock="late = Late(lambda native=native: native.enter_from_noexcept('stock'))",
        moored="late = Late(lambda native=native: native.enter_from_noexcept('moored'))",
        must_show=REFUSED,
        stock_shows={
            ALL: f"{ENDED}; std::terminate; dies by SIGABRT",
            HANG_SINCE: HANGS,
            (3, 14): ENTERS,
            (3, 15): HANGS,
        },
        evidence=("DataDog/dd-trace-py#16721", "python/cpython#105805"),
    ),
    Hazard(
        "2",
        "late-attach-with-a-lock",
        "In the same moment a thread hangs for ever, with the lock that it holds and the "
        "thread that joins it",
        stock="late = Late(lambda native=native: native.enter_and_be_joined('stock'))",
        moored="late = Late(lambda native=native: native.enter_and_be_joined('moored'))",
        must_show=f"{REFUSED}; joined",
        stock_shows={
            ALL: f"{ENDED}; joined",
            HANG_SINCE: "hangs",
            (3, 14): f"{ENTERS}; joined",
            (3, 15): "hangs",
        },
        evidence=("python/cpython#129536", "PEP 788"),
    ),
    Hazard(
        "3",
        "check-then-attach",
        "A check of `Py_IsFinalizing` is out of date when the call that it was for comes",
        stock="""
            native.look_then_enter()
            late = Late(native.enter_now)
        """,
        moored="""
            native.be_inside_when_it_closes(
                lambda: say("shutdown waits for a call that was let in, and it runs to its end"))
        """,
        must_show="shutdown waits for a call that was let in, and it runs to its end",
        stock_shows={
            ALL: f"Py_IsFinalizing() says no; {ENDED}",
            HANG_SINCE: f"Py_IsFinalizing() says no; {HANGS}",
            (3, 14): f"Py_IsFinalizing() says no; {ENTERS}",
            (3, 15): f"Py_IsFinalizing() says no; {HANGS}",
        },
        evidence=("PEP 788", "DataDog/dd-trace-py#16721"),
    ),
    Hazard(
        "4",
        "guard-held-while-idle",
        "A guard of PEP 788 that an idle thread holds blocks shutdown",
        stock="""
            native.idle_with_guard("stock")
            say("the end begins")
        """,
        moored="""
            native.idle_with_guard("moored")
            say("the end begins")
        """,
        must_show="the end begins",
        stock_shows="the end begins; hangs",
        evidence=("PEP 788",),
        not_run=from_version((3, 15), "the guards of PEP 788 came with 3.15"),
    ),
    Hazard(
        "5",
        "state-freed-under-its-owner",
        "`Py_FinalizeEx`, and `fork` in the child, free kept states under their owners",
        stock="""
            native.keep_until_exit("stock")
            child = os.fork()
            if child == 0:
                say("in the forked child the pointer "
                    + ("dangles" if native.kept_state_dangles() else "is whole"))
                os._exit(0)
            os.waitpid(child, 0)
        """,
        moored="""
            native.keep_until_exit("moored")
            child = os.fork()
            if child == 0:
                say(f"in the forked child {native.stats()['kept']} kept, "
                    f"{native.stats()['forgotten']} forgotten")
                os._exit(0)
            os.waitpid(child, 0)
        """,
        must_show={
            ALL: "in the forked child 0 kept, 1 forgotten; "
            "refused: there is no running Python interpreter",
            (3, 15): "in the forked child 0 kept, 1 forgotten; "
            "refused: this thread still shows a state of an interpreter that is gone",
        },
        evidence=("python/cpython#130649",),
        environment=OVERWRITE_FREED,
    ),
    Hazard(
        "14",
        "thread-ends-while-python-ends",
        "A thread that ends during finalisation frees its state in a `thread_local` destructor",
        stock="""
            native.keep_and_wait("stock")
            late = Late(native.end_now)
        """,
        moored="""
            native.keep_and_wait("moored")
            late = Late(lambda native=native: (
                native.end_now(), native.say(f"{native.stats()['forgotten']} forgotten")))
        """,
        must_show="joined; 1 forgotten",
        stock_shows={ALL: "std::terminate; dies by SIGABRT", HANG_SINCE: "hangs"},
    ),
    Hazard(
        "24",
        "fork-with-locks-held",
        "The child of a fork has only the forking thread: locks that others held stay held, and "
        "their states are freed",
        stock="""
            native.hold_a_lock("stock")
            child = os.fork()
            if child == 0:
                say("child: the lock is " + ("free" if native.can_lock() else "held for ever"))
                say("child: the state that it knows of "
                    + ("dangles" if native.kept_state_dangles() else "is whole"))
                os._exit(0)
            os.waitpid(child, 0)
        """,
        moored="""
            native.hold_a_lock("moored")
            child = os.fork()
            if child == 0:
                native.crowd(way, lambda: say("child: a new thread enters"), 1, 1)
                stats = native.stats()
                say(f"child: {stats['kept']} kept, {stats['forgotten']} forgotten")
                sys.exit(0)
            say(f"child: exit code {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
        """,
        must_show="child: a new thread enters; child: 0 kept, 1 forgotten; child: exit code 0",
        stock_shows="child: the lock is held for ever; child: the state that it knows of dangles",
        evidence=("pytorch/pytorch#4158",),
        environment=OVERWRITE_FREED,
    ),
]
