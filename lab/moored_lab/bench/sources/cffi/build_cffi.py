"""Writes the C source of the cffi extension: a callback with a handle, as in cffi's manual."""

import sys

from cffi import FFI  # type: ignore[import-untyped]

builder = FFI()
builder.cdef('extern "Python" void call(void *handle);')
builder.set_source("_cffi_callback", "")
builder.emit_c_code(sys.argv[1])
