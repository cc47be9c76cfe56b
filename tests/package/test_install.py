"""The chunk cache, as Python programs see it: one, in place for good, and harmless."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig

import pytest
from heap import SMALL_BLOCK, needs_heap
from support.processes import succeed

import moored
import moored._core

# Builds without a GIL have mimalloc alone.
ALLOCATORS = (
    ["mimalloc", "mimalloc_debug"]
    if sysconfig.get_config_var("Py_GIL_DISABLED")
    else ["pymalloc", "malloc", "pymalloc_debug", "malloc_debug"]
)

has_chunks = pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python has no chunks")


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="this Python has chunks")
def test_says_that_there_is_nothing_to_gain() -> None:
    with pytest.warns(RuntimeWarning, match=r"^moored.install\(\) did nothing: "):
        assert moored.install() is False


@has_chunks
def test_installing_twice_is_installing_once(run_script) -> None:
    run_script("""
        import warnings
        import moored
        warnings.simplefilter("error")
        assert moored.install() is True
        assert moored.install() is True
    """)


@has_chunks
def test_callbacks_are_served_from_the_second_one_on(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads
        assert moored.stats()["chunk_hits"] == moored.stats()["chunk_misses"] == 0
        moored.install()
        on_foreign_threads(lambda: None, calls=100)
        stats = moored.stats()
        assert stats["chunk_hits"] >= 99, stats
        assert stats["chunk_misses"] <= 2, stats
        assert stats["chunk_bytes"] == 16384 * stats["chunks_held"] > 0, stats
    """)


@has_chunks
def test_nothing_is_cached_before_it_is_installed(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads
        on_foreign_threads(lambda: None, calls=100)
        assert not any(moored.stats().values()), moored.stats()
    """)


@has_chunks
def test_threads_of_python_are_served_too(run_script) -> None:
    run_script("""
        import threading
        import moored
        from foreign_threads import until_main_is_alone
        moored.install()
        for _ in range(50):
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()
            until_main_is_alone()
        assert moored.stats()["chunk_hits"] >= 49, moored.stats()
    """)


@has_chunks
def test_deep_recursion_takes_several_chunks_and_gives_them_back(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads
        moored.install()
        depths = []
        def deep(n):
            return n and 1 + deep(n - 1)
        on_foreign_threads(lambda: depths.append(deep(600)), calls=20)
        assert depths == [600] * 20
        stats = moored.stats()
        assert stats["chunk_hits"] > 3 * stats["chunk_misses"], stats
        assert stats["chunks_held"] >= 2, stats
    """)


@has_chunks
def test_many_threads_at_once_compute_what_they_should(run_script) -> None:
    run_script("""
        import moored
        from foreign_threads import on_foreign_threads
        moored.install()
        sums = []
        def work(depth=200):
            return depth + work(depth - 1) if depth else sums.append(1) or 0
        results = []
        on_foreign_threads(lambda: results.append(work()), threads=16, calls=50)
        assert results == [20100] * 800
        assert moored.stats()["chunks_held"] <= 32
    """)


@needs_heap
def test_thousands_of_one_callback_threads_leave_no_memory(run_script) -> None:
    said = run_script(
        """
        import warnings
        import moored
        from foreign_threads import least_growth, on_threads_in_turn
        warnings.simplefilter("ignore")
        moored.install()
        print(least_growth(lambda: on_threads_in_turn(lambda: None, 1000)))
        assert moored.stats()["chunks_held"] <= 32, moored.stats()
        assert moored.stats()["chunk_misses"] <= 2, moored.stats()
    """,
        PYTHONMALLOC="malloc",
    )
    assert int(said) <= 1000 * SMALL_BLOCK // 2


@has_chunks
@pytest.mark.parametrize("malloc", ALLOCATORS)
def test_any_allocator_of_python_is_borne(run_script, malloc: str) -> None:
    run_script(
        """
        import moored
        from foreign_threads import on_foreign_threads
        keep = [bytearray(1000) for _ in range(5000)]
        moored.install()
        keep += [bytearray(1000) for _ in range(5000)]
        on_foreign_threads(lambda: keep.append(bytearray(1000)), calls=100)
        del keep[::2]
        assert moored.stats()["chunk_hits"] >= 99
        """,
        PYTHONMALLOC=malloc,
    )


@has_chunks
def test_tracemalloc_may_start_and_stop_around_it(run_script) -> None:
    run_script("""
        import tracemalloc
        import moored
        from foreign_threads import on_foreign_threads
        tracemalloc.start()
        moored.install()
        on_foreign_threads(lambda: bytearray(100), threads=4, calls=50)
        tracemalloc.stop()
        on_foreign_threads(lambda: bytearray(100), threads=4, calls=50)
        tracemalloc.start()
        on_foreign_threads(lambda: bytearray(100), threads=4, calls=50)
        assert tracemalloc.get_traced_memory()[0] > 0
        assert moored.stats()["chunk_hits"] >= 500
    """)


@has_chunks
@pytest.mark.parametrize("where", ["main", "callback"])
def test_child_of_a_fork_goes_on_with_it(run_script, where: str) -> None:
    run_script(f"""
        import os, warnings
        import moored
        from foreign_threads import on_foreign_threads
        warnings.simplefilter("ignore")  # 3.12 and later warn of any fork with threads
        moored.install()
        on_foreign_threads(lambda: None, calls=10)
        def fork():
            child = os.fork()
            if child == 0:
                before = moored.stats()["chunk_hits"]
                on_foreign_threads(lambda: None, calls=10)
                served = moored.install() and moored.stats()["chunk_hits"] >= before + 9
                os._exit(3 if served else 4)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
            done.append(child)
        done = []
        fork() if {where!r} == "main" else on_foreign_threads(fork)
        assert done
    """)


@has_chunks
def test_python_ends_well_with_daemon_threads_still_running(run_script) -> None:
    run_script("""
        import threading
        import moored
        from foreign_threads import on_foreign_threads
        moored.install()
        started = threading.Semaphore(0)
        def deep(n):
            return n and deep(n - 1)
        def work():
            started.release()
            while True:
                deep(300)
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        for _ in range(4):
            started.acquire()
    """)


@pytest.mark.skipif(not shutil.which("nm"), reason="no nm here")
def test_the_cache_is_one_for_all_extensions() -> None:
    symbols = succeed("nm", "--dynamic", "--defined-only", moored._core.__file__)
    caches = re.findall(r" (\w) \S*the_chunk_cache_\d+\S*$", symbols, re.MULTILINE)
    assert caches == ["u"], symbols
