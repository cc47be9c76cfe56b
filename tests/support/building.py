"""Builds the libraries, extensions and programs of the tests: one way for all of them."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .limits import BUILD_S
from .processes import Word, succeed

OPTIONS = ("-O2", "-pthread", "-Wall", "-Wextra", "-Werror")
SHARED = ("-shared", "-fPIC")
PYTHON_INCLUDE = sysconfig.get_path("include")

needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler here")
needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake here")
needs_library = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_ENABLE_SHARED"), reason="this Python cannot be embedded"
)

build = functools.partial(succeed, limit=BUILD_S)
"""Run a command that builds something, and must end well."""


def compile_program(source: Path, target: Path, *options: Word, compiler: str = "") -> Path:
    """Compile a C or C++ file; skip the test where there is no compiler for it."""
    usual, standard = ("cc", "gnu11") if source.suffix == ".c" else ("c++", "c++20")
    compiler = compiler or usual
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    build(compiler, f"-std={standard}", *OPTIONS, source, *options, "-o", target)
    return target


def compile_library(source: Path, target: Path, *options: Word) -> Path:
    """Compile a library that does not know Python; it is found by its path."""
    return compile_program(source, target, *SHARED, *options)


def compile_extension(source: Path, folder: Path, *options: Word) -> Path:
    """Compile an extension that includes moored, and may include pybind11; named for its source."""
    includes = [PYTHON_INCLUDE, importlib.import_module("moored").get_include()]
    if importlib.util.find_spec("pybind11"):
        includes.append(importlib.import_module("pybind11").get_include())
    system = [word for include in includes for word in ("-isystem", include)]
    target = folder / f"{source.stem}.so"
    return compile_program(source, target, *SHARED, "-fvisibility=hidden", *system, *options)


def load_extension(path: Path) -> ModuleType:
    """Import an extension from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def build_with_cmake(source: Path, folder: Path, *settings: Any) -> None:
    """Configure and build one project, for this interpreter."""
    build(
        *("cmake", "-S", source, "-B", folder, "-DCMAKE_BUILD_TYPE=Debug"),
        *(f"-DPython_EXECUTABLE={sys.executable}", *settings),
    )
    build("cmake", "--build", folder, "--parallel", "2")
