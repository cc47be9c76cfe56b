"""moored keeps native threads moored to Python.

Importing it opens the closing gate: from the moment the interpreter starts to shut down, native
threads that come in through moored are refused, and shutdown waits for the calls in flight.
"""

from __future__ import annotations

from pathlib import Path

from ._core import __version__, counters, keep_thread, release_thread, set_closing_bound

__all__ = [
    "__version__",
    "counters",
    "get_c_source",
    "get_cmake_dir",
    "get_include",
    "keep_thread",
    "release_thread",
    "set_closing_bound",
]

_PACKAGE = Path(__file__).resolve().parent


def get_include() -> str:
    """Return the folder to give to the compiler with -I, so that <moored/moored.hpp> is found."""
    return str(_PACKAGE / "include")


def get_cmake_dir() -> str:
    """Return the folder to give to CMake as moored_DIR, so that find_package(moored) works."""
    return str(_PACKAGE / "share" / "cmake" / "moored")


def get_c_source() -> str:
    """Return the C++ source to compile into a program or an extension that uses moored.h."""
    return str(_PACKAGE / "include" / "moored" / "moored_c.cpp")
