"""The callback of a C library that is used through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

_CALLBACK = ctypes.CFUNCTYPE(None)
_library = ctypes.CDLL(str(Path(__file__).with_name("call.so")))
_made: list[object] = []


def make(callable: Callable[[], object]) -> tuple[int, int]:
    """Give the address of a function that calls back, and the context that it wants."""
    callback = _CALLBACK(callable)
    _made.append(callback)
    function = ctypes.cast(_library.call, ctypes.c_void_p).value
    context = ctypes.cast(callback, ctypes.c_void_p).value
    return function or 0, context or 0
