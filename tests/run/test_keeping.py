"""Under `moored run` each native thread keeps the state that its first callback was given."""

from __future__ import annotations

THREE_VISITS = """
    caller.free.call_on_a_thread(CALLBACK(visit), 3)
    print(visits)
"""


def test_thread_locals_survive_between_callbacks(stock, kept):
    assert stock(THREE_VISITS).out == "[1, 1, 1]\n"
    ending = kept(THREE_VISITS)
    assert (ending.code, ending.out, ending.err) == (0, "[1, 2, 3]\n", "")
    assert ending.row["calls_served"] == 2


def test_fresh_loses_them_as_stock_does(kept):
    for option in ("--fresh", "--cache-only"):
        ending = kept(THREE_VISITS, option)
        assert (ending.code, ending.out, ending.err) == (0, "[1, 1, 1]\n", "")


def test_context_variables_survive_too(kept):
    ending = kept("""
        import contextvars
        count = contextvars.ContextVar("count", default=0)
        def step():
            count.set(count.get() + 1)
            visits.append(count.get())
        caller.free.call_on_a_thread(CALLBACK(step), 3)
        print(visits)
    """)
    assert ending.out == "[1, 2, 3]\n"


def test_every_state_is_freed_when_its_thread_ends(kept):
    ending = kept("""
        caller.free.call_on_threads(CALLBACK(visit), 1000, 2)
        while len(sys._current_frames()) > 1:
            pass  # the last ones are on their way
        print(visits == [1, 2] * 1000)
    """)
    assert (ending.code, ending.out) == (0, "True\n")
    counted = {name: ending.row[name] for name in ending.row if name.startswith("states_")}
    assert counted["states_adopted"] == counted["states_freed"] == 1000
    assert counted["states_kept"] == counted["states_forgotten"] == 0


def test_a_thread_may_be_joined_with_the_gil_held(kept):
    ending = kept("""
        entered = threading.Event()
        enter = CALLBACK(entered.set)
        caller.free.start_thread(enter, 1)
        entered.wait()
        print(caller.holding.join_started())
    """)
    assert (ending.code, ending.out, ending.err) == (0, "0\n", "")


def test_callbacks_on_threads_of_python_are_left_alone(kept):
    ending = kept("""
        COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        def sort():
            numbers = (ctypes.c_int * 3)(3, 2, 1)
            ctypes.CDLL(None).qsort(numbers, 3, 4, COMPARE(lambda a, b: visit() or 0))
        thread = threading.Thread(target=sort)
        thread.start()
        thread.join()
        sort()
        print(len(visits) > 3)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "True\n", "")
    assert ending.row["threads_seen"] == ending.row["states_adopted"] == 0


def test_a_callback_inside_a_callback_uses_the_same_state(kept):
    ending = kept("""
        COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        def nested():
            visit()
            numbers = (ctypes.c_int * 2)(2, 1)
            ctypes.CDLL(None).qsort(numbers, 2, 4, COMPARE(lambda a, b: visit() or 0))
        caller.free.call_on_a_thread(CALLBACK(nested), 2)
        print(visits == list(range(1, len(visits) + 1)) and len(visits) >= 4)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "True\n", "")
    assert ending.row["states_adopted"] == 1


def test_a_pointer_asked_of_dlsym_is_redirected(kept):
    ending = kept("""
        ensure = ctypes.cast(ctypes.pythonapi.PyGILState_Ensure, ctypes.c_void_p).value
        release = ctypes.cast(ctypes.pythonapi.PyGILState_Release, ctypes.c_void_p).value
        libc = ctypes.CDLL(None)
        class Where(ctypes.Structure):
            _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p),
                        ("name", ctypes.c_char_p), ("address", ctypes.c_void_p)]
        def owner(address):
            where = Where()
            libc.dladdr(ctypes.c_void_p(address), ctypes.byref(where))
            return os.path.basename(where.file.decode())
        print(owner(ensure), owner(release))
    """)
    assert (ending.code, ending.out) == (0, "libmoored_keep.so libmoored_keep.so\n")


def test_an_exception_in_a_callback_is_reported_as_stock_does(stock, kept):
    script = """
        def fail():
            raise ValueError("by the test")
        caller.free.call_on_a_thread(CALLBACK(fail), 2)
    """
    for ending in (stock(script), kept(script)):
        assert ending.code == 0
        assert ending.err.count("ValueError: by the test") == 2


def test_a_trace_function_survives(kept):
    ending = kept("""
        def trace(frame, event, argument):
            visits.append(event)
        def first():
            if not sys.gettrace():
                sys.settrace(trace)
        caller.free.call_on_a_thread(CALLBACK(first), 3)
        print(visits.count("call"))
    """)
    assert (ending.code, ending.out) == (0, "2\n")
