# cython_callback.pyx: the callback of an extension in Cython.
from cpython.ref cimport Py_INCREF
from libc.stdint cimport intptr_t


cdef void call(void* callable) noexcept with gil:
    (<object>callable)()


def make(callable):
    """Give the address of a function that calls back, and the context that it wants."""
    Py_INCREF(callable)
    return <intptr_t>&call, <intptr_t><void*>callable
