"""The callback of a C library that is used through cffi."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _cffi_callback import ffi, lib  # type: ignore[import-not-found]

_made: list[object] = []


@ffi.def_extern()  # type: ignore[untyped-decorator]
def call(handle: Any) -> None:
    """Call the function that the handle stands for."""
    ffi.from_handle(handle)()


def make(callable: Callable[[], object]) -> tuple[int, int]:
    """Give the address of a function that calls back, and the context that it wants."""
    handle = ffi.new_handle(callable)
    _made.append(handle)
    function = ffi.addressof(lib, "call")
    return int(ffi.cast("intptr_t", function)), int(ffi.cast("intptr_t", handle))
