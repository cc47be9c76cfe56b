"""Demangle: what a C++ or Rust compiler made of a name, turned back."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_LIBRARIES = ("libstdc++.so.6", "libc++abi.so.1")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}\Z")
_RUST_SIGNS = {
    "$LT$": "<",
    "$GT$": ">",
    "$RF$": "&",
    "$BP$": "*",
    "$C$": ",",
    "$LP$": "(",
    "$RP$": ")",
    "$u20$": " ",
    "$u27$": "'",
    "$u5b$": "[",
    "$u5d$": "]",
    "$u7b$": "{",
    "$u7d$": "}",
    "$u7e$": "~",
}


@lru_cache(maxsize=65536)
def demangle(name: str) -> str:
    """Return the name as in the source, as far as the C++ library is there; else as it is."""
    if not name.startswith("_Z"):
        return name
    convert = _converter()
    source = convert(name.encode()) if convert else None
    return _as_rust(source) if source else name


@lru_cache(maxsize=1)
def _converter() -> Callable[[bytes], str | None] | None:
    """Return what asks __cxa_demangle; None where there is no library that has it."""
    for library in _LIBRARIES:
        try:
            return _by(ctypes.CDLL(library)["__cxa_demangle"])
        except (OSError, AttributeError):
            continue
    return None


def _by(native: Any) -> Callable[[bytes], str | None]:
    free = ctypes.CDLL(None).free
    free.argtypes, free.restype = [ctypes.c_void_p], None
    native.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    native.restype = ctypes.c_void_p

    def convert(name: bytes) -> str | None:
        address = native(name, None, None, None)
        if not address:
            return None
        try:
            return ctypes.string_at(address).decode("utf-8", "replace")
        finally:
            free(address)

    return convert


def _as_rust(source: str) -> str:
    """Turn back what older Rust compilers write in their own way on top; C++ stays as it is."""
    plain = _RUST_HASH.sub("", source)
    if plain == source:
        return source
    for sign, text in _RUST_SIGNS.items():
        plain = plain.replace(sign, text)
    return re.sub(r"(?<=::)_(?=<)|\A_(?=<)", "", plain.replace("..", "::"))
