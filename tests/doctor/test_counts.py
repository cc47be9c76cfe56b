"""What is counted of a program beside its calls, states and waits."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
from support.building import compile_extension

from moored.doctor import capture

WITHOUT_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
needs_gil = pytest.mark.skipif(WITHOUT_GIL, reason="this Python has no GIL to wait for")
needs_chunks = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="data stacks are new in Python 3.11"
)


@needs_chunks
def test_each_temporary_state_maps_one_chunk(doctor):
    visit = doctor("parts.run_sensor(CALLBACK(lambda: None), 300)")
    assert visit.own.sees_chunks
    (site,) = visit.own.sites
    assert (site.counts.temporary_states, site.counts.chunks) == (300, 300)
    (thread,) = (one for one in visit.own.threads if one.kind == "foreign")
    assert thread.counts.chunks == 300
    assert visit.own.chunk_cost_ns > 0


@needs_chunks
def test_a_kept_state_maps_one_chunk_for_all_calls(doctor):
    visit = doctor("parts.run_sensor(CALLBACK(lambda: None), 300)", "--kept")
    assert visit.own.total.chunks <= 1  # none at all when it comes from the cache


def test_memory_that_is_mapped_for_other_things_is_no_chunk(doctor):
    visit = doctor("""
        import mmap
        def map_some():
            mmap.mmap(-1, 16 * 1024).close()
            some.append(bytearray(1 << 20))
        some = []
        parts.run_sensor(CALLBACK(map_some), 20)
        def deep(left):
            return left and deep(left - 1)
        thread = threading.Thread(target=deep, args=(500,))
        thread.start()
        thread.join()
    """)
    assert visit.own.total.chunks == (20 if visit.own.sees_chunks else 0)


LOCALS = """
import contextvars
local, variable = threading.local(), contextvars.ContextVar("variable")
def nothing():
    contextvars.copy_context()  # leaves a context behind, with nothing in it
def use_local():
    local.connection = object()
def use_variable():
    variable.set(1)
def use_either():
    seen.append(None)
    (use_local if len(seen) % 2 else nothing)()
seen = []
def run(function, times):
    parts.run_sensor(CALLBACK(function), times)
"""


@pytest.mark.parametrize(
    ("function", "lost"),
    [("nothing", 0), ("use_local", 40), ("use_variable", 40), ("use_either", 20)],
)
def test_thread_locals_that_temporary_states_take_along(doctor, function, lost):
    visit = doctor(LOCALS + f"run({function}, 40)")
    assert visit.ending.code == 0, visit.ending.err
    (site,) = visit.own.sites
    assert (site.counts.temporary_states, site.counts.states_with_locals) == (40, lost)
    assert visit.own.locals_lost == lost


@pytest.fixture
def scopes(tmp_path: Path) -> str:
    """The start of a script that calls by gil_scoped_acquire: known_scopes.run()."""
    pytest.importorskip("pybind11")
    extension = compile_extension(Path(__file__).parent / "known_scopes.cpp", tmp_path)
    return LOCALS + f"sys.path.insert(0, {str(extension.parent)!r}); import known_scopes\n"


def test_thread_locals_that_states_of_pybind11_take_along(doctor, scopes):
    counts = doctor(scopes + "known_scopes.run(use_either, 40)").own.total
    assert (counts.temporary_states, counts.states_with_locals) == (40, 20)
    kept = doctor(scopes + "known_scopes.run(use_local, 40)", "--kept").own
    assert (kept.total.temporary_states, kept.locals_lost) == (1, 0)


def test_what_deleting_a_state_of_pybind11_takes_is_in_the_cost(doctor, scopes):
    visit = doctor(scopes + "known_scopes.run(use_either, 40)")
    raw = visit.path.read_bytes()
    header = capture._header(visit.path, raw)
    rows = [
        capture._Thread.from_buffer_copy(raw, header.threads_at + index * header.thread_size)
        for index in range(header.threads)
    ]
    assert [row.counted.detach > 0 for row in rows if row.counted.states] == [True]


def test_a_kept_state_loses_no_thread_locals(doctor):
    script = LOCALS + "run(use_local, 40)"
    assert doctor(script).own.locals_lost == 40
    assert doctor(script, "--kept").own.locals_lost == 0


def test_a_state_that_is_counted_once_more_loses_nothing(doctor):
    """As cffi keeps one: the first call counts it, the last counts it back."""
    visit = doctor(
        LOCALS
        + """
def keep():
    use_local()
    if not seen:
        ctypes.pythonapi.PyGILState_Ensure()
    seen.append(None)
    if len(seen) == 40:
        ctypes.pythonapi.PyGILState_Release(1)
run(keep, 40)
"""
    )
    assert (visit.own.total.calls, visit.own.total.temporary_states) == (40, 1)
    assert visit.own.locals_lost == 0


def busy_thread(spins: str, calls: str) -> str:
    """Return a script in which a native thread waits for a thread of Python that is busy."""
    return f"""
calls, ready = [], threading.Event()
callback = CALLBACK(lambda: calls.append(None))
def spin():
    ready.set()
    while len(calls) < 40:
        pass
def call():
    ready.wait()
    parts.run_sensor(callback, 40)
helper = threading.Thread(target={calls})
helper.start()
{spins}
helper.join()
"""


@needs_gil
def test_waits_for_a_busy_main_are_blamed_on_main(doctor):
    visit = doctor(busy_thread("spin()", "call"))
    assert visit.own.sees_holders
    total = visit.own.total
    # What is waited before main has been seen, or known to be main, is blamed on no thread.
    assert total.wait_for_main_ns > total.wait_ns / 2


@needs_gil
def test_waits_for_another_busy_thread_are_not_blamed_on_main(doctor):
    """Main waits in the C library, for the native thread."""
    visit = doctor(busy_thread("call()", "spin"))
    assert visit.own.sees_holders
    total = visit.own.total
    assert total.wait_for_others_ns > total.wait_ns / 2


LOOP = """
import asyncio
async def main():
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    def wake():
        loop.call_soon_threadsafe(count)
    def count():
        woken.append(None)
        if len(woken) == times:
            done.set()
    callback = CALLBACK(wake)
    workers = [threading.Thread(target=parts.run_sensor, args=(callback, 100))]
    workers += [threading.Thread(target=lambda: [wake() for _ in range(30)])]
    for worker in workers: worker.start()
    await done.wait()
    for worker in workers: worker.join()
woken, times = [], 130
"""


def test_wakes_of_an_event_loop(doctor):
    visit = doctor(LOOP + "asyncio.run(main()); print(len(woken))")
    assert (visit.ending.code, visit.ending.out) == (0, "130\n"), visit.ending.err
    (sensor,) = (one for one in visit.own.threads if one.kind == "foreign")
    assert sensor.loop_wakes == 100
    # Threads of Python are seen from the first native call on.
    assert 100 <= visit.own.threadsafe_calls <= 130


def test_wakes_of_a_loop_that_came_after_the_thread(doctor):
    """The thread and its caller are known, and then asyncio is imported."""
    visit = doctor("""
        assert "_socket" not in sys.modules
        calls, given = [], threading.Event()
        def call():
            calls.append(None)
            if len(calls) == 50:
                given.wait()
            elif len(calls) > 50:
                loop.call_soon_threadsafe(loop.stop if len(calls) == 150 else int)
        callback = CALLBACK(call)
        helper = threading.Thread(target=parts.run_sensor, args=(callback, 150))
        helper.start()
        while len(calls) < 50:
            time.sleep(0)
        import asyncio
        loop = asyncio.new_event_loop()
        given.set()
        loop.run_forever()
        helper.join()
    """)
    assert visit.ending.code == 0, visit.ending.err
    assert visit.own.threadsafe_calls == 100


def test_what_is_sent_otherwise_is_no_wake(doctor):
    visit = doctor("""
        import socket
        one, other = socket.socketpair()
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        def send():
            one.send(b"x")
            one.send(bytes(2))
            client.send(bytes(1))
        parts.run_sensor(CALLBACK(send), 20)
        print(len(other.recv(1000)))
    """)
    assert (visit.ending.code, visit.ending.out) == (0, "60\n"), visit.ending.err
    assert visit.own.threadsafe_calls == 0


CONTEND = """
import sys, threading
sys.setswitchinterval(1e-6)
busy = [threading.Thread(target=lambda: sum(range(200_000))) for _ in range(4)]
for one in busy:
    one.start()
for one in busy:
    one.join()
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="GILs of their own are new in Python 3.12")
def test_waits_for_a_gil_that_is_gone_are_no_guide(doctor):
    """The GIL of a subinterpreter goes with it, and its memory with that."""
    visit = doctor(f"""
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        inner = interpreters.create()
        interpreters.run_string(inner, {CONTEND!r})
        interpreters.destroy(inner)
        parts.run_sensor(CALLBACK(lambda: None), 20)
    """)
    assert visit.ending.code == 0, visit.ending.err
    assert visit.own.total.calls == 20
