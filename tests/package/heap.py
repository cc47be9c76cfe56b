"""Whether malloc's heap tells of leaks here, and how small ones."""

from __future__ import annotations

import ctypes
import sysconfig

import pytest

SMALL_BLOCK = 32
"""What malloc takes for the smallest object."""


def _why_it_tells_nothing() -> str:
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "builds without the GIL do not allocate by malloc"
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return "mallinfo2() came with glibc 2.33"
    return ""


needs_heap = pytest.mark.skipif(bool(_why_it_tells_nothing()), reason=_why_it_tells_nothing())
"""For tests that compare how much of the heap is in use."""
