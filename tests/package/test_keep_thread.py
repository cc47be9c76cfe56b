"""keep_thread() and keeps_thread on foreign threads, on Python's own, and around fork and exit."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from heap import SMALL_BLOCK, needs_heap
from support.processes import finish

import moored


def test_a_callback_that_keeps_its_thread_finds_its_locals_again(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads, until_nothing_is_kept, visit
        seen = []
        on_foreign_threads(lambda: seen.append(visit()), calls=3)
        assert seen == [1, 1, 1], seen  # as it is without moored
        answers = []
        def callback():
            answers.append(moored.keep_thread())
            seen.append(visit())
        on_foreign_threads(callback, calls=50)
        assert answers == [True] * 50
        assert seen[3:] == list(range(1, 51)), seen
        assert moored.stats()["states_adopted"] == 1, moored.stats()
        until_nothing_is_kept()
        assert moored.stats()["states_freed"] == 1, moored.stats()
    """)


def test_keeping_is_for_the_calls_to_come(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads, visit
        seen = []
        def callback():
            seen.append(visit())
            if len(seen) == 3:
                moored.keep_thread()
        on_foreign_threads(callback, calls=6)
        assert seen == [1, 1, 1, 2, 3, 4], seen
    """)


def test_a_thread_can_let_go_and_keep_again(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads, until_nothing_is_kept, visit
        seen = []
        def callback():
            seen.append(visit())
            if len(seen) in (1, 5):
                moored.keep_thread()
            if len(seen) == 3:
                moored.release_thread()
        on_foreign_threads(callback, calls=7)
        assert seen == [1, 2, 3, 1, 1, 2, 3], seen
        until_nothing_is_kept()
    """)


def test_many_threads_keep_a_state_each(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads, until_nothing_is_kept, visit
        seen = []
        on_foreign_threads(moored.keeps_thread(lambda: seen.append(visit())), threads=8, calls=500)
        assert sorted(seen) == sorted(list(range(1, 501)) * 8)
        until_nothing_is_kept()
        stats = moored.stats()
        assert stats["states_adopted"] == stats["states_freed"] == 8, stats
    """)


def test_a_limit_has_the_threads_that_are_too_many_let_go(run_script) -> None:
    run_script("""
        import threading
        import moored
        from foreign_threads import on_foreign_threads, until_nothing_is_kept
        moored.set_kept_limit(2)
        all_here = threading.Barrier(8)
        here, answers = set(), []
        def callback():
            answers.append(moored.keep_thread())
            if threading.get_ident() not in here:
                here.add(threading.get_ident())
                all_here.wait()
        on_foreign_threads(callback, threads=8, calls=3)
        assert answers.count(False) >= 6, answers
        until_nothing_is_kept()
        stats = moored.stats()
        assert stats["states_over_limit"] == answers.count(False), stats
        assert stats["states_adopted"] == stats["states_freed"] >= 8, stats
    """)


def test_asking_does_not_make_threading_know_the_thread(run_script) -> None:
    run_script("""
        import threading
        import moored
        from foreign_threads import on_foreign_threads
        counts = []
        def callback():
            moored.keep_thread()
            counts.append(len(threading.enumerate()))
        on_foreign_threads(callback, calls=3)
        assert counts == [1, 1, 1], counts
    """)


def test_a_thread_that_threading_knows_as_a_dummy_is_foreign(run_script) -> None:
    run_script("""
        import threading
        import moored
        from foreign_threads import on_foreign_threads, visit
        seen = []
        def callback():
            name = threading.current_thread().name
            seen.append((moored.keep_thread(), visit(), name))
        on_foreign_threads(callback, calls=3)
        assert [(kept, visits) for kept, visits, _ in seen] == [(True, n) for n in (1, 2, 3)], seen
        assert len({name for _, _, name in seen}) == 1, seen
    """)


def test_threads_that_python_made_are_left_alone() -> None:
    class Own(threading.Thread):
        def run(self) -> None:
            answers.append((moored.keep_thread(), moored.keep_thread()))

    before = moored.stats()
    answers = [(moored.keep_thread(), moored.keep_thread())]
    for kind in (
        Own(),
        threading.Thread(target=Own.run, args=(None,)),
        threading.Timer(0, Own.run, (None,)),
    ):
        kind.start()
        kind.join()
    with ThreadPoolExecutor(1) as pool:
        answers.append(pool.submit(lambda: (moored.keep_thread(), moored.keep_thread())).result())
    assert answers == [(False, False)] * 5
    assert moored.stats()["states_adopted"] == before["states_adopted"]


def test_ctypes_callbacks_on_the_main_thread_are_left_alone(run_script) -> None:
    run_script("""
        import ctypes
        import moored
        answers = []
        COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        def compare(a, b):
            answers.append(moored.keep_thread())
            return 0
        ctypes.CDLL(None).qsort((ctypes.c_int * 2)(2, 1), 2, 4, COMPARE(compare))
        assert answers and not any(answers), answers
    """)


def test_raw_threads_of_python_bear_it(run_script) -> None:
    run_script("""
        import _thread
        import moored
        from foreign_threads import until, until_nothing_is_kept
        ended = []
        def work():
            for _ in range(3):
                moored.keep_thread()
            ended.append(1)
        for _ in range(200):
            _thread.start_new_thread(work, ())
        until(lambda: len(ended) == 200)
        until_nothing_is_kept()
        _thread.start_new_thread(work, ())
        until(lambda: len(ended) == 201)
    """)


def test_churn_of_kept_threads_leaves_no_state(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_threads_in_turn, until_nothing_is_kept
        on_threads_in_turn(moored.keep_thread, 1000)
        until_nothing_is_kept()
        stats = moored.stats()
        assert stats["states_adopted"] == stats["states_freed"] == 1000, stats
    """)


@needs_heap
def test_churn_of_kept_threads_leaves_no_memory(run_script) -> None:
    said = run_script(
        """
        import moored
        from foreign_threads import least_growth, on_threads_in_turn, until_nothing_is_kept
        def churn():
            on_threads_in_turn(moored.keep_thread, 1000)
            until_nothing_is_kept()
        print(least_growth(churn))
    """,
        PYTHONMALLOC="malloc",
    )
    assert int(said) <= 1000 * SMALL_BLOCK // 2


def test_exit_while_a_kept_thread_waits(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_thread_that_stays, visit
        on_thread_that_stays(moored.keeps_thread(visit), calls=3)
        assert moored.stats()["states_kept"] == 1
    """)


def test_keeping_is_refused_when_the_gate_has_closed(run_script) -> None:
    said = run_script("""
        import atexit, ctypes, os
        native = ctypes.CDLL(os.environ["FOREIGN_THREADS"])
        callback = ctypes.CFUNCTYPE(None)(lambda: print(moored.keep_thread()))
        atexit.register(native.call_together, callback, 1, 2)  # runs after the gate has closed
        import moored
        atexit.register(native.call_together, callback, 1, 2)
    """)
    assert said.split() == ["True", "True", "False", "False"]


def test_a_program_that_does_not_import_threading(run_script) -> None:
    said = run_script("""
        import ctypes, os
        import moored
        native = ctypes.CDLL(os.environ["FOREIGN_THREADS"])
        callback = ctypes.CFUNCTYPE(None)(lambda: print(moored.keep_thread()))
        native.call_together(callback, 1, 2)
        callback()
    """)
    assert said.split() == ["True", "True", "False"]


@pytest.mark.parametrize("before", ["pass", "threading.current_thread()"])
def test_fork_in_a_kept_callback(run_script, before: str) -> None:
    run_script(f"""
        import os, threading, warnings
        import moored
        from foreign_threads import on_foreign_threads, visit
        warnings.simplefilter("ignore")  # 3.12 and later warn of any fork with threads
        codes = []
        @moored.keeps_thread
        def callback():
            visits = visit()
            {before}
            if visits == 2:
                child = os.fork()
                if child == 0:
                    callback()
                    on_foreign_threads(callback, calls=1)
                    kept = moored.keep_thread()  # this is the child's main thread now
                    os._exit(99 if kept else visit())
                codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        on_foreign_threads(callback, calls=5)
        assert codes == [4], codes
        assert moored.stats()["states_adopted"] == 1
    """)


def test_fork_on_main_while_others_are_kept(run_script) -> None:
    run_script("""
        import os, sys, warnings
        import moored
        from foreign_threads import on_foreign_threads, on_thread_that_stays, visit
        warnings.simplefilter("ignore")
        callback = moored.keeps_thread(visit)
        on_thread_that_stays(callback)
        child = os.fork()
        if child == 0:
            assert moored.keep_thread() is False
            assert moored.stats()["states_kept"] == 0
            on_foreign_threads(callback, calls=3)
            assert moored.stats()["states_adopted"] == 2, moored.stats()
            sys.exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    """)


# The decorator


def test_decorated_callback_works_with_ctypes(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads, visit
        seen = []
        class Counter:
            @moored.keeps_thread
            def count(self):
                seen.append(visit())
        on_foreign_threads(Counter().count, calls=20)
        assert seen == list(range(1, 21)), seen
        on_foreign_threads(moored.keeps_thread(Counter().count), calls=20)
        assert seen[20:] == list(range(1, 21)), seen
    """)


def test_decorated_function_is_called_as_before() -> None:
    @moored.keeps_thread
    def join(first: str, *rest: str, sep: str = "-", **named: str) -> str:
        """Join them."""
        return sep.join([first, *rest, *named, *named.values()])

    assert join("a") == "a"
    assert join("a", "b", sep="+") == "a+b"
    assert join(*"ab", **{"c": "d"}) == "a-b-c-d"
    assert functools.partial(join, "x")("y") == "x-y"
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        join()  # type: ignore[call-arg]


def test_decorated_function_looks_as_before() -> None:
    def callback(count: int, /, *, name: str = "") -> int:
        """Call back."""
        return count

    callback.mark = 7  # type: ignore[attr-defined]
    decorated = moored.keeps_thread(callback)
    assert decorated.__name__ == "callback"
    assert decorated.__qualname__ == callback.__qualname__
    assert decorated.__module__ == __name__
    assert decorated.__doc__ == "Call back."
    assert decorated.__wrapped__ is callback
    assert decorated.mark == 7
    assert inspect.signature(decorated) == inspect.signature(callback)
    assert repr(decorated) == f"<moored.keeps_thread {callback!r}>"
    decorated.note = "one's own"
    assert not hasattr(callback, "note")


SPAWNED = """
import copy, multiprocessing, pickle
import moored

@moored.keeps_thread
def double(number):
    return 2 * number

class Scaled:
    def __init__(self, by):
        self.by = by
    @moored.keeps_thread
    def times(self, number):
        return self.by * number

if __name__ == "__main__":
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(double, protocol)) is double
    assert pickle.loads(pickle.dumps(Scaled(3).times))(4) == 12
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [1, 2]), pool.map(Scaled(5).times, [1, 2]))
"""


def test_decorated_functions_go_to_other_processes_by_name(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    done = finish(sys.executable, script)
    assert (done.out, done.err) == ("[2, 4] [5, 10]\n", "")


def test_what_has_no_name_cannot_be_pickled() -> None:
    partial = moored.keeps_thread(functools.partial(pow, 2))
    with pytest.raises(TypeError, match="has no name"):
        pickle.dumps(partial)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(moored.keeps_thread(lambda: None))


def test_copies_are_the_same_function() -> None:
    for decorated in (moored.keeps_thread(len), moored.keeps_thread(functools.partial(pow, 2))):
        assert copy.copy(decorated) is decorated
        assert copy.deepcopy({"key": [decorated]})["key"][0] is decorated


def test_inspect_knows_what_kind_of_function_is_decorated() -> None:
    @moored.keeps_thread
    async def coroutine() -> int:
        return 5

    @moored.keeps_thread
    def generator():  # type: ignore[no-untyped-def]
        yield 1

    @moored.keeps_thread
    async def asynchronous_generator():  # type: ignore[no-untyped-def]
        yield 1

    @moored.keeps_thread
    def plain(a: int, b: int = 2, *, c: int = 3) -> None:
        pass

    class Holder:
        @moored.keeps_thread
        async def method(self) -> None:
            pass

    kinds = (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    )
    for decorated, expected in (
        (coroutine, [True, False, False]),
        (generator, [False, True, False]),
        (asynchronous_generator, [False, False, True]),
        (plain, [False, False, False]),
        (Holder().method, [True, False, False]),
        (moored.keeps_thread(coroutine), [True, False, False]),
        (moored.keeps_thread(functools.partial(pow, 2)), [False, False, False]),
        (moored.keeps_thread(int), [False, False, False]),
    ):
        assert [kind(decorated) for kind in kinds] == expected
    assert asyncio.run(coroutine()) == 5
    assert plain.__defaults__ == (2,)
    assert plain.__kwdefaults__ == {"c": 3}
    assert set(plain.__annotations__) == {"a", "b", "c", "return"}
    plain.__annotations__ = {}
    assert plain.__annotations__ == {}
    assert not hasattr(plain, "no_such_attribute")


def test_methods_bind() -> None:
    class Model:
        @moored.keeps_thread
        def name(self, suffix: str) -> tuple[Model, str]:
            return self, suffix

        @staticmethod
        @moored.keeps_thread
        def static(value: int) -> int:
            return value

        @classmethod
        @moored.keeps_thread
        def of_class(cls, value: int) -> tuple[type, int]:
            return cls, value

        @property
        @moored.keeps_thread
        def size(self) -> int:
            return 3

    model = Model()
    assert model.name("x") == (model, "x")
    assert Model.name(model, suffix="y") == (model, "y")
    bound = model.name
    assert bound("z") == (model, "z")
    assert bound.__self__ is model
    assert bound == model.name
    assert model.static(1) == Model.static(1) == 1
    assert model.of_class(2) == (Model, 2)
    assert model.size == 3


@pytest.mark.parametrize("wrong", [None, 3, "name", classmethod(len), property(len)])
def test_what_cannot_be_called_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"^keeps_thread needs something callable, not "):
        moored.keeps_thread(wrong)  # type: ignore[arg-type]


def test_anything_callable_will_do() -> None:
    assert moored.keeps_thread(len)("abc") == 3
    assert moored.keeps_thread(functools.partial(pow, 2))(5) == 32
    assert moored.keeps_thread(moored.keeps_thread(int))("7") == 7
    assert moored.keeps_thread("{}-{}".format)(1, 2) == "1-2"


def test_exceptions_pass_through() -> None:
    @moored.keeps_thread
    def fail() -> None:
        raise LookupError("by the test")

    with pytest.raises(LookupError, match="by the test"):
        fail()


def test_a_decorated_function_is_collected() -> None:
    def make() -> weakref.ref[object]:
        @moored.keeps_thread
        def callback() -> object:
            return callback  # a cycle through the closure

        callback.itself = callback  # another through the attributes
        assert callback() is callback
        return weakref.ref(callback)

    gone = make()
    gc.collect()
    assert gone() is None


def test_calls_leave_no_references() -> None:
    def function(*values: object, **named: object) -> None:
        pass

    callback, marker = moored.keeps_thread(function), object()
    before = sys.getrefcount(function), sys.getrefcount(callback), sys.getrefcount(marker)
    for _ in range(100):
        callback(marker, name=marker)
        callback(*[marker] * 20, **{f"n{i}": marker for i in range(20)})
    after = sys.getrefcount(function), sys.getrefcount(callback), sys.getrefcount(marker)
    assert after == before
    others = [moored.keeps_thread(function) for _ in range(100)]
    assert sys.getrefcount(function) > before[0] + 100
    del others
    assert sys.getrefcount(function) == before[0]


def test_type_checkers_see_the_same_signature(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "typed.py"
    script.write_text(
        textwrap.dedent("""
            import moored

            @moored.keeps_thread
            def callback(count: int, *, name: str = "") -> float:
                return float(count)

            class Model:
                @moored.keeps_thread
                def method(self, value: int) -> str:
                    return str(value)

            kept: bool = moored.keep_thread()
            stats: moored.Stats = moored.stats()
            result: float = callback(1, name="x")
            text: str = Model().method(3)
            callback("one")
            callback(1, nam="x")
            Model().method("three")
            moored.keeps_thread(3)
        """)
    )
    done = finish(sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, script)
    errors = [line.split(":")[1] for line in done.out.splitlines() if ": error:" in line]
    assert errors == ["17", "18", "19", "20"], done.out + done.err
