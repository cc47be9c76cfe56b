"""Bindings: the ways to write an extension that calls Python back, and how each one is built.

Each gives a module `<name>_callback` with one function: `make(callable)` returns the address of a C
function that enters Python, calls and leaves, and the context to call it with.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moored_lab.bench.workshop import CannotBuild, Workshop

CXX_FLAGS = ("-std=c++17", "-fvisibility=hidden", "-DNDEBUG")


@dataclass(frozen=True)
class Binding:
    """One of them, and the name that its users know."""

    key: str
    name: str
    build: Callable[[Workshop, Path, Path], None]


def build_ctypes(shop: Workshop, source: Path, target: Path) -> None:
    """Build the C library alone; ctypes comes with Python."""
    shop.compile(target / "call.so", source / "call.c")


def build_plain_c(shop: Workshop, source: Path, target: Path) -> None:
    """Build an extension with nothing but Python's headers."""
    shop.compile(target / "plain_c_callback.so", source / "plain_c_callback.c")


def build_cffi(shop: Workshop, source: Path, target: Path) -> None:
    """Build cffi's extension in API mode from the C that it writes."""
    shop.pip_install("cffi>=1.16")
    shop.run(shop.python, source / "build_cffi.py", target / "_cffi_callback.c")
    shop.compile(target / "_cffi_callback.so", target / "_cffi_callback.c")


def build_cython(shop: Workshop, source: Path, target: Path) -> None:
    """Build Cython's extension from the C that it writes."""
    shop.pip_install("Cython>=3.0")
    written = target / "cython_callback.c"
    shop.run(shop.python, "-m", "cython", "-3", source / "cython_callback.pyx", "-o", written)
    shop.compile(target / "cython_callback.so", written)


def build_pybind11(shop: Workshop, source: Path, target: Path) -> None:
    """Build with pybind11, which is headers alone."""
    shop.pip_install("pybind11>=2.13")
    include = f"-I{shop.packages / 'pybind11' / 'include'}"
    code = source / "pybind11_callback.cpp"
    shop.compile(target / "pybind11_callback.so", code, *CXX_FLAGS, include)


def build_nanobind(shop: Workshop, source: Path, target: Path) -> None:
    """Build with nanobind, its library in the same file."""
    shop.pip_install("nanobind>=2.4")
    package = shop.packages / "nanobind"
    include = (f"-I{package / 'include'}", f"-I{package / 'ext' / 'robin_map' / 'include'}")
    flags = (*CXX_FLAGS, "-fno-strict-aliasing", "-DNB_COMPACT_ASSERTIONS", *include)
    library = package / "src" / "nb_combined.cpp"
    code = source / "nanobind_callback.cpp"
    shop.compile(target / "nanobind_callback.so", code, library, *flags)


def build_swig(shop: Workshop, source: Path, target: Path) -> None:
    """Build SWIG's extension from the C++ that it writes; the package brings the program."""
    shop.pip_install("swig>=4.1")
    interface, written = source / "swig_callback.i", target / "swig_callback_wrap.cxx"
    shop.run(
        *(shop.python.with_name("swig"), "-c++", "-python", "-threads"),
        *("-outdir", target, "-o", written, interface),
    )
    shop.compile(target / "_swig_callback.so", written, *CXX_FLAGS)


def build_pyo3(shop: Workshop, source: Path, target: Path) -> None:
    """Build a crate with PyO3."""
    cargo = shutil.which("cargo")
    if cargo is None:
        raise CannotBuild("there is no cargo; install Rust to measure PyO3")
    out = shop.folder / "cargo"
    shop.run(
        *(cargo, "build", "--quiet", "--release"),
        *("--manifest-path", target / "Cargo.toml", "--target-dir", out),
        PYO3_PYTHON=str(shop.interpreter.executable),
    )
    shutil.copy(out / "release" / "libpyo3_callback.so", target / "pyo3_callback.so")


BINDINGS = (
    Binding("plain_c", "C", build_plain_c),
    Binding("ctypes", "ctypes", build_ctypes),
    Binding("cffi", "cffi", build_cffi),
    Binding("cython", "Cython", build_cython),
    Binding("pybind11", "pybind11", build_pybind11),
    Binding("nanobind", "nanobind", build_nanobind),
    Binding("swig", "SWIG", build_swig),
    Binding("pyo3", "PyO3", build_pyo3),
)
