"""Hazards of what is built and bound: private fields, allocators, symbols."""

from __future__ import annotations

import platform

from hazard import ALL, Hazard

VISITS = """
here = threading.local()
visits = []
def visit():
    here.visits = getattr(here, "visits", 0) + 1
    visits.append(here.visits)
native.crowd("stock", visit, 1, 3)
"""


def not_x86_64() -> str:
    here = platform.machine()
    return "" if here == "x86_64" else f"the reproduction knows x86-64, and this is {here}"


HAZARDS = [
    Hazard(
        "22",
        "arena-hook-that-calls-python",
        "An arena allocator that calls Python is called again by the state that it is part of",
        stock="""
            told = []
            native.call_python_at_each_arena(lambda: told.append(0))
            native.crowd("stock", lambda: None, 1, 100)
            say("100 calls")
        """,
        moored="""
            import tracemalloc
            native.stats_of_chunks()
            installed = native.install()
            tracemalloc.start()
            native.crowd("stock", lambda: None, 1, 100)
            say("100 calls with tracemalloc")
            if installed:
                say(f"{native.chunks()[0]} chunk of the allocator below, "
                    f"{native.cache_hits()} of the cache")
        """,
        must_show={
            ALL: "100 calls with tracemalloc",
            (3, 11): "100 calls with tracemalloc; 1 chunk of the allocator below, 99 of the cache",
        },
        evidence=("python/cpython#96071",),
    ),
    Hazard(
        "25",
        "private-fields",
        "`gilstate_counter` and `_status` are private: they move, come and go between versions",
        stock="say(native.private_fields())",
        moored="""
            import pathlib, re, moored
            def files_with(pattern):
                folder = pathlib.Path(moored.get_include(), "moored")
                return sorted(path.name for path in folder.rglob("*.h*")
                              if re.search(pattern, re.sub("//.*", "", path.read_text())))
            say("private fields are used in "
                + (", ".join(files_with(r"gilstate_counter|(->|[.])_status\\b")) or "no header"))
            say("private functions in " + ", ".join(files_with(r"\\b_Py\\w+[(]")))
        """,
        must_show="private fields are used in entries.hpp, state_contents.hpp; "
        "private functions in calls.hpp, current_word.hpp, late_threads.hpp",
        evidence=("python-cffi/cffi#269", "python-cffi/cffi#263"),
    ),
    Hazard(
        "26",
        "read-only-references",
        "References of an extension built without a PLT and with RELRO are read-only",
        stock="native.patch_own_reference()",
        moored=f"{VISITS}say(f'unmodified, its thread keeps its state: visits {{visits}}')",
        must_show="unmodified, its thread keeps its state: visits [1, 2, 3]",
        stock_shows="its slot is found; dies by SIGSEGV",
        evidence=("kubo/plthook#10", "bloomberg/memray#685"),
        not_run=not_x86_64,
        under_moored_run=True,
    ),
    Hazard(
        "26b",
        "symbols-of-the-executable",
        "An interpreter that contains libpython comes first in symbol lookup, so that a preloaded "
        "`PyGILState_Ensure` is not called",
        stock=f"""
import ctypes
preloaded = ctypes.PyDLL(os.environ["LD_PRELOAD"])
before = preloaded.count_preloaded_calls()
{VISITS}
calls = preloaded.count_preloaded_calls() - before
say(f"{{calls}} of 3 calls reach a preloaded function")
""",
        moored=f"{VISITS}say(f'unmodified, its thread keeps its state: visits {{visits}}')",
        must_show="unmodified, its thread keeps its state: visits [1, 2, 3]",
        stock_preload=True,
        under_moored_run=True,
    ),
]
