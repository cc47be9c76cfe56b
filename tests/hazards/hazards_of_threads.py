"""Hazards of native threads: how they come, go, wait, and lock."""

from __future__ import annotations

import sys

from hazard import ALL, Hazard, from_version, only_with_gil, only_without_gil

CHURN = """
before = native.count_states()
for _ in range(1000):
    native.crowd(enter, lambda: None, 1, 1)
say(f"{native.count_states() - before} states left of 1000 threads")
"""
STORM = """
states = set()
native.crowd(way, lambda: states.add(native.state_id()), 50, 20)
say(f"{len(states)} states made for 1000 calls on 50 threads")
"""
CHUNKS = """
native.stats_of_chunks()
native.crowd(enter, lambda: None, threads, calls)
mapped, left = native.chunks()
"""
# os._exit: what happens at the end is another hazard.
SAMPLES = """
import re, subprocess
native.keep_until_exit(way)
for options in ("-a", "-a --mode gil", ""):
    done = subprocess.run(
        [sys.executable, "-m", "profiling.sampling", "attach", "-d", "1", *options.split(),
         str(os.getpid())], capture_output=True, text=True)
    rate = float(re.search(r"Error rate: ([0-9.]+)", done.stdout + done.stderr)[1])
    say(f"{options or 'without'}: samples {'fail' if rate > 50 else 'are taken'}")
os._exit(0)
"""
# Where CPython is mended, -a works as well: name that version here.
SAMPLED = "-a: samples fail; -a --mode gil: samples are taken; without: samples are taken"


def without_chunks() -> str:
    return "" if sys.version_info >= (3, 11) else "Python 3.10 has no data-stack chunks"


HAZARDS = [
    Hazard(
        "8",
        "clearing-a-state-that-is-not-current",
        "Clearing a state that is not current trips the allocator of builds without the GIL",
        evidence=("python/cpython#153176", "python/cpython#153307"),
        not_run=only_without_gil,
    ),
    Hazard(
        "14",
        "thread-ends-with-a-pthread-key",
        "The destructor of a pthread key frees the state when CPython's own key is empty already",
        stock="native.free_by_key('stock')\nsay('the state is freed')",
        moored="""
            native.free_by_key("moored")
            if native.stats()["freed"] == 1:
                say("the state is freed")
        """,
        must_show="the state is freed",
        stock_shows={
            ALL: "fatal error: PyGILState_Release: auto-releasing thread-state, but no "
            "thread-state for this thread; dies by SIGABRT",
            (3, 15): "the state is freed",
        },
    ),
    Hazard(
        "14",
        "thread-joined-with-the-gil",
        "The end of a thread that waits for the GIL deadlocks with one that joins it with the "
        "GIL held",
        stock="native.join_with_gil_held('stock')",
        moored="native.join_with_gil_held('moored')",
        must_show="joined",
        stock_shows="hangs",
        not_run=only_with_gil,
    ),
    Hazard(
        "15",
        "threads-that-come-and-go",
        "Kept states grow without bound when the end of their threads is missed",
        stock=f"enter = 'hoarded'{CHURN}",
        moored=f"enter = 'moored'{CHURN}",
        must_show="0 states left of 1000 threads",
        stock_shows="1000 states left of 1000 threads",
    ),
    Hazard(
        "18",
        "idle-while-attached",
        "An idle kept state must be detached: others wait for it, in builds without the GIL at "
        "every stop of the world",
        stock="""
            import gc
            native.idle("stock")
            gc.collect()
            say("Python runs meanwhile")
        """,
        moored="""
            import gc
            native.idle("moored")
            gc.collect()
            say("Python runs meanwhile")
        """,
        must_show="idles detached; Python runs meanwhile",
        stock_shows="hangs",
        evidence=("python/cpython#151518",),
    ),
    Hazard(
        "19",
        "storms-of-new-states",
        "Many states made at once stop the world for a table that grows (builds without the GIL); "
        "with a GIL they only cost time",
        stock=STORM,
        moored=STORM,
        must_show="50 states made for 1000 calls on 50 threads",
        stock_shows="1000 states made for 1000 calls on 50 threads",
        evidence=("python/cpython#157666", "python/cpython#148953"),
    ),
    Hazard(
        "20",
        "memory-of-kept-states",
        "Kept states retain memory: a data-stack chunk each; in builds without the GIL also a heap",
        stock=f"enter, threads, calls = 'hoarded', 100, 1{CHUNKS}"
        "say(f'{left} chunks left when 100 threads have ended')",
        moored=f"enter, threads, calls = 'moored', 100, 1{CHUNKS}"
        "say(f'{left} chunks left when 100 threads have ended')",
        must_show="0 chunks left when 100 threads have ended",
        stock_shows="100 chunks left when 100 threads have ended",
        evidence=("lakehq/sail#2462", "pantsbuild/pants#23489", "python/cpython#143279"),
        not_run=without_chunks,
    ),
    Hazard(
        "23",
        "chunks-of-temporary-states",
        "A spare chunk per state (3.13 and later) does not help a thread whose every call has a "
        "state of its own",
        stock=f"enter, threads, calls = 'stock', 1, 100{CHUNKS}"
        "say(f'chunks mapped for 100 calls: {mapped}')",
        moored=f"enter, threads, calls = 'moored', 1, 100{CHUNKS}"
        "say(f'chunks mapped for 100 calls: {mapped}')",
        must_show="chunks mapped for 100 calls: 1",
        stock_shows="chunks mapped for 100 calls: 100",
        evidence=("python/cpython#142183", "python/cpython#145789", "python/cpython#148681"),
        not_run=without_chunks,
    ),
    Hazard(
        "27",
        "a-lock-and-the-gil",
        "A lock held while a thread waits for the GIL deadlocks with one that holds the GIL "
        "and wants the lock",
        stock="native.lock_with_gil_held()",
        moored="""
            native.call_moored_with_gil_held()
            say("moored's calls return while threads wait for the GIL in try_attach")
        """,
        must_show="moored's calls return while threads wait for the GIL in try_attach",
        stock_shows="hangs",
        evidence=("pybind/pybind11#4877", "pola-rs/polars#24448"),
        not_run=only_with_gil,
    ),
    Hazard(
        "28",
        "wakeups-from-other-threads",
        "uvloop's `call_soon_threadsafe` is not thread-safe in builds without the GIL",
        evidence=("MagicStack/uvloop#720",),
        not_run=only_without_gil,
    ),
    Hazard(
        "29",
        "sampler-and-idle-states",
        "CPython's sampler (`python -m profiling.sampling attach`) with `-a` takes an idle state, "
        "which has no frame, for a broken one; without `-a`, or with `--mode gil`, it does not",
        stock=SAMPLES,
        moored=SAMPLES,
        must_show=SAMPLED,
        stock_shows=SAMPLED,
        evidence=("python/cpython#157605",),
        not_run=from_version((3, 15), "the sampler came with 3.15"),
    ),
]
