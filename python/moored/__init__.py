"""moored keeps native threads moored to Python.

Importing it opens the closing gate: from the moment the interpreter starts to shut down, native
threads that come in through moored are refused, and shutdown waits for the calls in flight.
"""

from __future__ import annotations

import warnings

import moored_sdk

from . import _core
from ._core import (
    __version__,
    keep_thread,
    keeps_thread,
    release_thread,
    set_closing_bound,
    set_kept_limit,
    stats,
)
from ._stats import ChannelStats, Stats
from .channel import Channel, ChannelClosed

__all__ = [
    "Channel",
    "ChannelClosed",
    "ChannelStats",
    "Stats",
    "__version__",
    "get_c_source",
    "get_cmake_dir",
    "get_include",
    "install",
    "keep_thread",
    "keeps_thread",
    "release_thread",
    "set_closing_bound",
    "set_kept_limit",
    "stats",
]


def install() -> bool:
    """Make temporary thread states cheap, for every extension in the process, and for good.

    Puts a cache of data-stack chunks behind Python's arena allocator. True when it is in place,
    by this call or an earlier one. Python 3.10 has no such chunks: False, with a RuntimeWarning.
    """
    if _core.install():
        return True
    warnings.warn(
        "moored.install() did nothing: this Python is older than 3.11, "
        "where temporary thread states are cheap already",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def get_include() -> str:
    """Return the folder to give to the compiler with -I, so that <moored/moored.hpp> is found."""
    return moored_sdk.include_dir()


def get_cmake_dir() -> str:
    """Return the folder to give to CMake as moored_DIR, so that find_package(moored) works."""
    return moored_sdk.cmake_dir()


def get_c_source() -> str:
    """Return the C++ source to compile into a program or an extension that uses moored.h."""
    return moored_sdk.c_source()
