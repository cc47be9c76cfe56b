"""Under `moored run`, what a native thread's locals held has been finalised when it was joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from programs import HERE
from support.building import compile_program
from support.processes import Ending

ENDS = """
import ctypes, os, sys, threading
CALLBACK = ctypes.CFUNCTYPE(None)
_path = os.path.join(os.path.dirname(__file__), "ending_threads.so")
free = ctypes.CDLL(_path)
holding = ctypes.PyDLL(_path)
for _library in (free, holding):
    _library.start.argtypes = [CALLBACK] + [ctypes.c_int] * 4
    _library.call_at_the_end.argtypes = [CALLBACK]
    _library.wait_by_condition.argtypes = [CALLBACK]
RETURNS, EXITS, IS_CANCELLED = range(3)
PLAINLY, TIMED, BY_CLOCK, BY_TRYING, BY_C11 = range(5)
def started(call, count, calls=2, end=RETURNS, c11=0):
    'Have that many threads made their calls; they wait to be let go.'
    assert free.start(call, count, calls, end, c11) == count
    while free.passed() < count:
        pass
here = threading.local()
"""

CONNECTIONS = """
    import sqlite3
    alive = 0
    wrong = []
    class Connection:
        'Only its own thread may use it, and at its end it must.'
        def __init__(self):
            global alive
            alive += 1
            self.thread = threading.get_ident()
            self.connection = sqlite3.connect(":memory:")
        def __del__(self):
            global alive
            try:
                self.connection.execute("select 1").fetchall()
                self.connection.close()
            except Exception as error:
                wrong.append(repr(error))
            if threading.get_ident() != self.thread:
                wrong.append("on another thread")
            alive -= 1
    def connect():
        if not hasattr(here, "connection"):
            here.connection = Connection()
    connect = CALLBACK(connect)
"""


@pytest.fixture(scope="session")
def ending_threads(native: Path) -> Path:
    compile_program(
        HERE / "ending_threads.cpp",
        native / "ending_threads.so",
        *("-std=c++17", "-shared", "-fPIC"),
    )
    (native / "ends.py").write_text(ENDS)
    return native


@pytest.fixture
def ends(ending_threads: Path, kept: Callable[..., Ending]) -> Callable[..., Ending]:
    def run(script: str, *options: str, **variables: str) -> Ending:
        return kept("    from ends import *\n" + script, *options, **variables)

    return run


WAYS = ["PLAINLY", "TIMED", "BY_CLOCK", "BY_TRYING", "BY_C11"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("library", ["free", "holding"])
def test_all_is_finalised_on_its_own_thread_when_the_join_returns(ends, library, way):
    ending = ends(
        CONNECTIONS
        + f"""
    for _ in range(10):
        started(connect, 8, c11={way} == BY_C11)
        assert alive == 8
        assert {library}.join_all({way}, 0) == 8
        assert (alive, wrong) == (0, []), (alive, wrong)
    print("done")
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")
    assert ending.row["states_freed"] == 80
    assert ending.row["states_freed_late"] == 0


@pytest.mark.parametrize("library", ["free", "holding"])
@pytest.mark.parametrize("end", ["EXITS", "IS_CANCELLED"])
def test_however_the_thread_ends(ends, library, end):
    ending = ends(
        CONNECTIONS
        + f"""
    for _ in range(10):
        started(connect, 4, end={end})
        assert {library}.join_all(PLAINLY, {end} == IS_CANCELLED) == 4
        assert (alive, wrong) == (0, []), (alive, wrong)
    print("done")
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")
    assert ending.row["states_freed_late"] == 0


@pytest.mark.parametrize("join", ["join_through_another(PLAINLY)", "join_by_crowd()"])
@pytest.mark.parametrize("library", ["free", "holding"])
def test_a_chain_of_joins(ends, library, join):
    ending = ends(
        CONNECTIONS
        + f"""
    for _ in range(10):
        started(connect, 8)
        assert {library}.{join} == 8
        assert (alive, wrong) == (0, []), (alive, wrong)
    print("done")
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")
    assert ending.row["states_freed_late"] == 0


def test_joiners_with_and_without_the_gil_beside_busy_python(ends):
    ending = ends(
        CONNECTIONS
        + """
    over = False
    def be_busy():
        while not over:
            sum(range(1000))
    crowd = [threading.Thread(target=be_busy) for _ in range(2)]
    for one in crowd:
        one.start()
    for library in (free, holding) * 3:
        started(connect, 8)
        assert library.join_all(PLAINLY, 0) == 8
        assert (alive, wrong) == (0, []), (alive, wrong)
    over = True
    for one in crowd:
        one.join()
    print("done")
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")


def test_the_last_words_of_a_thread_may_call_python(ends):
    ending = ends(
        CONNECTIONS
        + """
    said = []
    def last():
        said.append((hasattr(here, "connection"), alive))
        here.connection = Connection()
    last = CALLBACK(last)
    free.call_at_the_end(last)
    for library in (free, holding):
        started(connect, 1)
        # Not with the GIL held: what calls Python at its end waits for it, with moored and without.
        assert free.join_all(PLAINLY, 0) == 1
        assert (alive, wrong) == (0, []), (alive, wrong)
    print(said)
    """
    )
    assert (ending.code, ending.err) == (0, "")
    assert ending.out == "[(False, 0), (False, 0)]\n"


def test_a_condition_that_is_waited_for_with_the_gil_held(ends):
    ending = ends(
        CONNECTIONS
        + """
    import time
    for _ in range(3):
        holding.wait_by_condition(connect) if False else None
    entered = threading.Event()
    def once():
        here.connection = Connection()
    once = CALLBACK(once)
    started(once, 1, 1)
    holding.release()
    ctypes.PyDLL(None).usleep(300_000)  # the GIL does not change hands: longer than the bound
    while alive:
        time.sleep(0.001)
    assert free.join_all(PLAINLY, 0) == 1
    print("done")
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")
    assert ending.row["states_freed"] == ending.row["states_freed_late"] == 1


def test_an_event_loop_of_the_library_that_goes_by_a_condition(ends):
    ending = ends(
        CONNECTIONS
        + """
    import time
    for _ in range(10):
        free.wait_by_condition(connect)
    while alive:
        time.sleep(0.001)
    print(wrong)
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "[]\n", "")


def test_a_joiner_can_be_cancelled(ends):
    ending = ends("""
    started(CALLBACK(lambda: None), 1)  # a state is kept
    print(free.cancel_a_joiner(), holding.cancel_a_joiner())
    assert free.join_all(PLAINLY, 0) == 1
    """)
    assert (ending.code, ending.out, ending.err) == (0, "1 1\n", "")


def test_files_are_complete_and_locks_are_let_go_after_the_join(ends, tmp_path):
    ending = ends(f"""
    import fcntl
    path = {str(tmp_path / "log")!r}
    def write():
        if not hasattr(here, "log"):
            here.log = open(path, "w")
            fcntl.flock(here.log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here.log.write("line\\n")
    write = CALLBACK(write)
    for library in (free, holding) * 20:
        started(write, 1, 25)
        assert library.join_all(PLAINLY, 0) == 1
        with open(path) as log:
            assert len(log.readlines()) == 25
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("done")
    """)
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")


def test_a_worker_that_ends_right_after_the_join_loses_nothing(ends, tmp_path):
    ending = ends(f"""
    import multiprocessing
    def write():
        if not hasattr(here, "log"):
            here.log = open(os.path.join({str(tmp_path)!r}, f"{{threading.get_native_id()}}"), "a")
        here.log.write("line\\n")
    def work():
        call = CALLBACK(write)
        started(call, 4, 25)
        free.join_all(PLAINLY, 0)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    print([one.exitcode for one in workers])
    """)
    assert (ending.code, ending.out, ending.err) == (0, "[0, 0, 0]\n", "")
    logs = [path for path in tmp_path.iterdir() if path.name.isdigit()]
    assert sum(len(path.read_text().splitlines()) for path in logs) == 300


def test_a_thread_has_one_object_and_each_object_one_thread(ends):
    ending = ends("""
    first, seen, stale, changed = {}, [], 0, 0
    def look():
        global stale, changed
        me = threading.current_thread()
        if not first:
            first[0] = me
            stale += hasattr(me, "tenant")
            me.tenant = "this thread's"
        else:
            changed += first[0] is not me
    look = CALLBACK(look)
    for _ in range(200):
        first.clear()
        started(look, 1, 3)
        free.join_all(PLAINLY, 0)
    print(stale if sys.version_info >= (3, 13) else 0, changed)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "0 0\n", "")


def test_no_thread_but_the_programs_is_needed(ends):
    ending = ends(
        CONNECTIONS
        + """
    import resource
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(100_000 + os.getpid())  # a user without other processes
    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))  # main and one native thread
    for library in (free, holding) * 50:
        while free.start(connect, 1, 2, RETURNS, 0) == 0:
            pass  # the kernel counts the last thread for some us more
        while free.passed() == 0:
            pass
        assert library.join_all(PLAINLY, 0) == 1
        assert (alive, wrong) == (0, []), (alive, wrong)
    print("done", flush=True)
    os._exit(0)
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")


def test_no_thread_is_left_at_a_fork_after_the_join(ends):
    """The kernel counts an ending thread for some us after the join, stock too: not each time."""
    ending = ends("""
    import warnings
    warnings.simplefilter("always")
    nothing = CALLBACK(lambda: None)
    warned = 0
    for _ in range(20):
        started(nothing, 2)
        free.join_all(PLAINLY, 0)
        with warnings.catch_warnings(record=True) as caught:
            child = os.fork()
            if child == 0:
                os._exit(0)
        os.waitpid(child, 0)
        warned += len(caught)
    print(warned < 20)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "True\n", "")


def test_the_child_of_a_fork_finalises_nothing_of_other_threads(ends):
    ending = ends("""
    import contextvars
    main = os.getpid()
    class Told:
        def __init__(self, what):
            self.what = what
        def __del__(self):
            if os.getpid() != main:
                os.write(1, f"{self.what} in the child\\n".encode())
    variable = contextvars.ContextVar("variable")
    late = contextvars.ContextVar("late")
    def hold():
        if not hasattr(here, "told"):
            here.told = Told("a local")
            variable.set(Told("a context variable"))
        else:
            here.later = Told("a later local")
            late.set(Told("a later context variable"))
    hold = CALLBACK(hold)
    started(hold, 3, 2)
    for ends in (os._exit, sys.exit):
        child = os.fork()
        if child == 0:
            own = CALLBACK(lambda: setattr(here, "mine", 1))
            free.start(own, 1, 1, RETURNS, 0)  # the child goes on with threads of its own
            ends(0)
        assert os.waitpid(child, 0)[1] == 0
    free.join_all(PLAINLY, 0)
    print("done")
    """)
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")


def test_forks_while_threads_end(ends):
    ending = ends(
        CONNECTIONS
        + """
    over = False
    def come_and_go():
        while not over:
            started(connect, 3)
            free.join_all(PLAINLY, 0)
    thread = threading.Thread(target=come_and_go)
    thread.start()
    for _ in range(30):
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    over = True
    thread.join()
    print(wrong)
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "[]\n", "")


def test_exit_while_threads_end(ends):
    for _ in range(10):
        ending = ends(
            CONNECTIONS
            + """
    started(connect, 8)
    free.release()
    sys.exit(5)
    """
        )
        assert (ending.code, ending.err) == (5, "")


def test_a_process_without_python_starts_and_joins_threads(ending_threads, tmp_path, moored_run):
    source = tmp_path / "plain.c"
    source.write_text("""
        #include <pthread.h>
        #include <stdio.h>
        static void* body(void* given) { return given; }
        int main(void) {
          for (long at = 0; at < 1000; ++at) {
            pthread_t thread;
            void* result = 0;
            if (pthread_create(&thread, 0, body, (void*)at)) return 1;
            if (pthread_join(thread, &result) || result != (void*)at) return 2;
          }
          return puts("done") < 0;
        }
    """)
    program = compile_program(source, tmp_path / "plain")
    ending = moored_run("--exec", program)
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")
