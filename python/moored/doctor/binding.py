"""Binding: by what a library enters Python, recognised in the library's file."""

from __future__ import annotations

from functools import lru_cache

from .elf import ElfFile, NotElf

PLAIN = "C or C++"

# In the order in which they are asked: an extension of one binding may well mention another.
_BY_EXPORT = {
    "PyInit__ctypes": "ctypes",
    "PyInit__cffi_backend": "cffi",
    "PyInit__gi": "PyGObject",
    "PyInit__jpype": "JPype",
}
_BY_NEED = {
    "libshiboken": "Shiboken",
    "libpyside": "Shiboken",
    "libboost_python": "Boost.Python",
}
_BY_STRING = {
    b"nanobind::": "nanobind",
    b"__nb_internals": "nanobind",
    b"__pybind11_internals_v": "pybind11",
    b"pyo3_runtime": "PyO3",
    b"/pyo3-": "PyO3",
    b"SwigPyObject": "SWIG",
    b"swig_runtime_data": "SWIG",
    b"N5boost6python": "Boost.Python",
    b"sipAPI": "sip",
    b"PyQt6.sip": "sip",
    b"cython_runtime": "Cython",
    b"__pyx_capi__": "Cython",
    b"cython_function_or_method": "Cython",
    b"_cffi_backend": "cffi",
}

_OF_PYTHON = "PyGILState_Ensure"
"""What exports it is the interpreter itself."""


@lru_cache(maxsize=4096)
def recognise(path: str) -> str:
    """Return the binding of the library in a file; plain C or C++ when it shows none."""
    name = path.rpartition("/")[2]
    for beginning, binding in _BY_NEED.items():
        if name.startswith(beginning):  # the binding's own library
            return binding
    try:
        with ElfFile(path) as file:
            return recognise_in(file)
    except NotElf:
        return PLAIN


def recognise_in(file: ElfFile) -> str:
    """Return the binding of an open file."""
    exported = set(file.exported())
    if _OF_PYTHON in exported:
        return "Python"
    for name, binding in _BY_EXPORT.items():
        if name in exported:
            return binding
    needed = file.needed()
    for name, binding in _BY_NEED.items():
        if any(one.startswith(name) for one in needed):
            return binding
    found = file.which(_BY_STRING)
    return next((binding for word, binding in _BY_STRING.items() if word in found), PLAIN)
