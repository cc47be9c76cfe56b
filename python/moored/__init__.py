"""moored keeps native threads moored to Python.

Importing it opens the closing gate: from the moment the interpreter starts to shut down, native
threads that come in through moored are refused, and shutdown waits for the calls in flight.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import moored_sdk

from . import _core
from ._core import (
    __version__,
    keep_thread,
    keeps_thread,
    release_thread,
    set_closing_bound,
    set_kept_limit,
    set_urgent_budget,
    stats,
)
from ._stats import ChannelStats, Stats
from .channel import Channel, ChannelClosed

if TYPE_CHECKING:
    from ._event_loop import EventLoop

__all__ = [
    "Channel",
    "ChannelClosed",
    "ChannelStats",
    "EventLoop",
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
    "set_urgent_budget",
    "stats",
]


def __getattr__(name: str) -> object:
    # Not imported above: it imports asyncio, for which not every program has a use.
    if name == "EventLoop":
        from ._event_loop import EventLoop

        return EventLoop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def install(*, urgent: bool = False) -> bool:
    """Make temporary thread states cheap, for every extension in the process, and for good.

    Puts a cache of data-stack chunks behind Python's arena allocator. True when it is in place,
    by this call or an earlier one. Python 3.10 has no such chunks: False, with a RuntimeWarning
    unless it is asked for what follows.

    With urgent, threads of keep_thread(urgent=True) and native code that attaches urgently get the
    GIL from a thread that runs Python at once, not after the switch interval. Redirects one
    reference of the interpreter, to pthread_cond_timedwait. RuntimeError with the reason where that
    cannot be done; the cache is in place then.
    """
    installed = _core.install()
    if urgent:
        if (why := _core.install_urgent()) is not None:
            raise RuntimeError(f"moored.install(urgent=True) cannot work here: {why}")
    elif not installed:
        warnings.warn(
            "moored.install() did nothing: this Python is older than 3.11, "
            "where temporary thread states are cheap already",
            RuntimeWarning,
            stacklevel=2,
        )
    return installed


def get_include() -> str:
    """Return the folder to give to the compiler with -I, so that <moored/moored.hpp> is found."""
    return moored_sdk.include_dir()


def get_cmake_dir() -> str:
    """Return the folder to give to CMake as moored_DIR, so that find_package(moored) works."""
    return moored_sdk.cmake_dir()


def get_c_source() -> str:
    """Return the C++ source to compile into a program or an extension that uses moored.h."""
    return moored_sdk.c_source()
