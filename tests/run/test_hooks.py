"""What the redirected functions do besides: they leave to no call what an earlier one left behind,
and answer at once those that only ask.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
from programs import HERE
from support.building import PYTHON_INCLUDE, compile_library, compile_program
from support.processes import Ending

AS_SHARED = ["-shared", "-fPIC", f"-I{PYTHON_INCLUDE}"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")
WAYS = {
    "by Ensure": [],
    "by a state of its own": ["-DBY_OWN_STATE=1"],
    "by a state of its own, cleared within a scope": ["-DBY_OWN_STATE=2"],
}
if sys.version_info >= (3, 15):
    WAYS["by a view"] = ["-DBY_VIEW"]


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def careless(request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str]) -> None:
    """Let scripts import careless_extension."""
    target = tmp_path / f"careless_extension{SUFFIX}"
    compile_program(HERE / "careless_extension.c", target, *AS_SHARED, *request.param)
    environment["PYTHONPATH"] += f":{tmp_path}"


@pytest.fixture
def careless_and_keepable(request: pytest.FixtureRequest, careless: None) -> None:
    """The same, where what it makes can be kept without the launcher."""
    if "by a view" in request.node.callspec.id:
        pytest.skip("a state that PyThreadState_EnsureFromView made dies with its Release")


def check(ending: Ending, said: str) -> Ending:
    assert (ending.code, ending.out, ending.err) == (0, said, ""), ending
    return ending


@pytest.mark.usefixtures("careless")
def test_an_exception_that_a_call_left_set_does_not_reach_the_next(stock, kept):
    script = """
        import careless_extension
        def fail_at_times():
            visit()
            if len(visits) % 2 == 0:
                raise ValueError("by the test")
            sum([1, 2, 3])
            str(careless_extension)
        print(careless_extension.call(fail_at_times, 6), len(visits))
    """
    check(stock(script), "3 6\n")
    ending = check(kept(script), "3 6\n")
    assert ending.row["calls_served"] == 5


@pytest.mark.usefixtures("careless")
def test_what_its_traceback_held_is_let_go_of_at_once_and_on_its_thread(stock, kept):
    script = """
        import careless_extension
        lock = threading.Lock()
        class Held:
            def __init__(self): self.made_by = threading.get_ident()
            def __del__(self): print("finalised", threading.get_ident() == self.made_by)
        def hold():
            with lock:
                yield
        def fail():
            held, holding = Held(), hold()
            next(holding)
            raise ValueError("by the test")
        careless_extension.start(fail)
        print("called", lock.locked())
        careless_extension.again()
        print("called", lock.locked())
        careless_extension.end()
    """
    for ending in (stock(script), kept(script)):
        check(ending, 2 * "finalised True\ncalled False\n")


@pytest.mark.usefixtures("careless")
def test_an_exception_that_a_call_left_as_handled_does_not_reach_the_next(stock, kept):
    script = """
        import careless_extension
        class Held:
            def __del__(self): print("finalised")
        def fail():
            held = Held()
            raise ValueError("by the test")
        def leave(error):
            for one in (kind := ctypes.py_object(type(error)), left := ctypes.py_object(error)):
                ctypes.pythonapi.Py_IncRef(one)
            return kind, left, None
        def leave_one():
            print(sys.exc_info()[0])
            try:
                fail()
            except ValueError as error:
                left = leave(error)
            ctypes.pythonapi.PyErr_SetExcInfo(*left)
            del left
        careless_extension.start(leave_one)
        print("called")
        careless_extension.again()
        print("called")
        careless_extension.end()
    """
    for ending in (stock(script), kept(script)):
        check(ending, 2 * "None\nfinalised\ncalled\n")


@pytest.mark.usefixtures("careless")
def test_a_finaliser_in_its_traceback_may_enter_python_again(kept):
    ending = kept("""
        import careless_extension
        COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        class Held:
            def __del__(self):
                numbers = (ctypes.c_int * 2)(2, 1)
                ctypes.CDLL(None).qsort(numbers, 2, 4, COMPARE(lambda a, b: print("entered") or 0))
        def fail():
            held = Held()
            raise ValueError("by the test")
        careless_extension.start(fail)
        careless_extension.again()
        careless_extension.end()
    """)
    check(ending, 2 * "entered\n")


@pytest.mark.usefixtures("careless")
def test_a_release_within_a_call_leaves_the_calls_exception_alone(stock, kept):
    script = """
        import careless_extension
        print(careless_extension.nested())
    """
    for ending in (stock(script), kept(script)):
        check(ending, "yyy\n")


@pytest.mark.usefixtures("careless")
def test_a_release_on_a_python_thread_leaves_its_exception_alone(stock, kept):
    script = """
        import careless_extension
        def fail():
            raise ValueError("by the test")
        def call():
            try:
                careless_extension.call_here(fail)
            except ValueError as failed:
                print(failed)
        call()
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    """
    for ending in (stock(script), kept(script)):
        check(ending, 2 * "by the test\n")


@pytest.mark.usefixtures("careless")
def test_an_exception_sent_to_an_idle_thread_hits_no_call(stock, kept):
    script = """
        import careless_extension
        numbers = []
        def call():
            numbers.append(threading.get_ident())
            for _ in range(1000): pass
            visit()
        careless_extension.start(call)
        send = ctypes.pythonapi.PyThreadState_SetAsyncExc
        send(ctypes.c_ulong(numbers[0]), ctypes.py_object(KeyError))
        careless_extension.again()
        careless_extension.again()
        careless_extension.end()
        print(len(visits), len(numbers))
    """
    for ending in (stock(script), kept(script)):
        check(ending, "3 3\n")


@pytest.mark.usefixtures("careless")
def test_idle_threads_are_listed_until_they_end(kept):
    ending = kept("""
        import careless_extension, faulthandler, tempfile
        def listed():
            with tempfile.TemporaryFile("w+") as dump:
                faulthandler.dump_traceback(dump)
                dump.seek(0)
                return dump.read().count("Thread 0x")  # not "Current thread 0x"
        careless_extension.start(lambda: visits.append(threading.current_thread()))
        print(listed(), visits[0] in threading.enumerate())
        careless_extension.end()
        while listed():
            pass  # where it is freed after its thread's end
        print(visits[0] in threading.enumerate())
    """)
    check(ending, f"1 True\n{sys.version_info < (3, 13)}\n")


@pytest.mark.usefixtures("careless")
def test_an_exception_sent_to_a_call_hits_it(stock, kept):
    script = """
        import careless_extension
        begun, may_end, numbers = threading.Event(), threading.Event(), []
        def call():
            visit()
            numbers.append(threading.get_ident())
            try:
                begun.set()
                may_end.wait()
                for _ in range(1000): pass
            except KeyError:
                visits.append("hit")
        def send():
            begun.wait()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(numbers[0]), ctypes.py_object(KeyError))
            may_end.set()
        sender = threading.Thread(target=send)
        sender.start()
        careless_extension.call(call, 1)
        sender.join()
        print(visits)
    """
    for ending in (stock(script), kept(script)):
        check(ending, "[1, 'hit']\n")


# Without the launcher nothing is redirected, and the decorator sees to it.


@pytest.mark.usefixtures("careless_and_keepable")
def test_a_decorated_callback_does_not_meet_an_earlier_exception(stock):
    script = """
        import careless_extension, moored
        @moored.keeps_thread
        def fail_at_times():
            visit()
            if len(visits) % 2 == 0:
                raise ValueError("by the test")
            sum([1, 2, 3])
            str(careless_extension)
        print(careless_extension.call(fail_at_times, 6), visits)
    """
    check(stock(script), "3 [1, 2, 3, 4, 5, 6]\n")


@pytest.mark.usefixtures("careless_and_keepable")
def test_keep_thread_drops_an_earlier_exception(stock):
    script = """
        import careless_extension, moored
        def fail_at_times():
            moored.keep_thread()
            visit()
            if len(visits) % 2 == 0:
                raise ValueError("by the test")
            sum([1, 2, 3])
        print(careless_extension.call(fail_at_times, 6), visits)
    """
    check(stock(script), "3 [1, 2, 3, 4, 5, 6]\n")


@pytest.mark.skipif(not HAS_GIL, reason="only the thread itself may touch its state")
@pytest.mark.usefixtures("careless_and_keepable")
def test_what_a_decorated_callbacks_traceback_held_is_let_go_of_while_its_thread_idles(stock):
    script = """
        import careless_extension, moored
        lock = threading.Lock()
        def hold():
            with lock:
                yield
        @moored.keeps_thread
        def fail():
            holding = hold()
            next(holding)
            raise ValueError("by the test")
        for call in careless_extension.start, lambda _: careless_extension.again():
            call(fail)
            print(lock.acquire(timeout=30))  # main may be waiting already when it is let go of
            lock.release()
        careless_extension.end()
    """
    check(stock(script), "True\nTrue\n")


@pytest.mark.usefixtures("careless_and_keepable")
def test_the_caller_of_a_decorated_callback_gets_its_exception(stock):
    script = """
        import careless_extension, moored
        @moored.keeps_thread
        def fail():
            raise ValueError("by the test")
        def outer():
            try:
                fail()
            except ValueError as failed:
                visits.append(str(failed))
        print(careless_extension.call(moored.keeps_thread(outer), 2), visits)
    """
    check(stock(script), "0 ['by the test', 'by the test']\n")


@pytest.mark.usefixtures("careless_and_keepable")
def test_a_decorated_callback_is_not_hit_by_what_was_sent_to_its_idle_thread(stock):
    script = """
        import careless_extension, moored
        numbers = []
        @moored.keeps_thread
        def call():
            numbers.append(threading.get_ident())
            for _ in range(1000): pass
            visit()
        careless_extension.start(call)
        send = ctypes.pythonapi.PyThreadState_SetAsyncExc
        send(ctypes.c_ulong(numbers[0]), ctypes.py_object(KeyError))
        careless_extension.again()
        careless_extension.end()
        print(visits)
    """
    check(stock(script), "[1, 2]\n")


@pytest.mark.parametrize("first", ["", "caller.free.call_on_a_thread(CALLBACK(visit), 1)"])
def test_the_first_callback_of_the_process_within_an_exit_handler(stock, kept, tmp_path, first):
    library = tmp_path / "late_caller.so"
    compile_library(HERE / "late_caller.c", library)
    script = f"""
        import atexit
        call_on_late_threads = ctypes.CDLL({str(library)!r}).call_on_late_threads
        class Finalised:
            def __del__(self): pass
        def call():
            visit()
            here.finalised = Finalised()
        call_later = caller.immortal(call)
        def last():
            call_on_late_threads(call_later, 4)
            print(len(visits), flush=True)
        atexit.register(last)
        {first}
    """
    count = 9 if first else 8
    for ending in (stock(script), *(kept(script) for _ in range(3))):
        assert (ending.code, ending.out, ending.err) == (0, f"{count}\njoined\n", "")


ASKING = """
    import asking_extension
    asking_extension.start()
    while asking_extension.answers()[0] < 20000:
        asking_extension.allocate()
    asking_extension.stop()
    asked, answered = asking_extension.answers()
    print(asked > 0, answered)
    asking_extension.call(visit, 3)
    print(visits)
"""


def test_a_thread_that_asks_for_its_state_with_a_lock_held_does_not_wait(
    stock, kept, tmp_path: Path, environment
) -> None:
    pybind11 = pytest.importorskip("pybind11")
    compile_program(
        HERE / "asking_extension.cpp",
        tmp_path / f"asking_extension{SUFFIX}",
        *("-std=c++17", "-fvisibility=hidden", *AS_SHARED),
        f"-I{pybind11.get_include()}",
    )
    environment["PYTHONPATH"] += f":{tmp_path}"
    assert stock(ASKING).out == "True 0\n[1, 1, 1]\n"
    ending = kept(ASKING)
    assert (ending.code, ending.out, ending.err) == (0, "True 0\n[1, 2, 3]\n", "")
    assert ending.row["calls_served"] == 2
