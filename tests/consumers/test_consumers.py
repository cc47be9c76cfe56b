"""Builds small real programs against the installed moored, as its users would, and runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import moored

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler here")
needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake here")
needs_library = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_ENABLE_SHARED"), reason="this Python cannot be embedded"
)


def run(*words: str | Path, limit: float = 120, **variables: str) -> str:
    """Run a command and return what it printed; what it printed is also why it failed."""
    done = subprocess.run(
        [str(word) for word in words],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build_with_cmake(source: Path, folder: Path, *settings: str) -> None:
    """Configure and build one consumer, for this interpreter."""
    run(
        *("cmake", "-S", source, "-B", folder, "-DCMAKE_BUILD_TYPE=Debug"),
        *(f"-DPython_EXECUTABLE={sys.executable}", *settings),
    )
    run("cmake", "--build", folder)


def visit(folder: Path) -> None:
    """Have the module that was built into this folder call back from its thread."""
    said = run(sys.executable, HERE / "visits.py", "consumer", PYTHONPATH=str(folder), limit=60)
    assert said == "moored\n"


@pytest.fixture
def wheel() -> str:
    """Where find_package finds the moored that pip installed."""
    return f"-Dmoored_DIR={moored.get_cmake_dir()}"


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """Where find_package finds a moored that cmake --install put under a prefix."""
    run("cmake", "-S", CHECKOUT, "-B", tmp_path / "moored")
    run("cmake", "--install", tmp_path / "moored", "--prefix", tmp_path / "prefix")
    return f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}"


@needs_cmake
@needs_library
@pytest.mark.parametrize("installed", ["wheel", "prefix"])
def test_program_that_embeds_python(
    installed: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    build_with_cmake(HERE / "find_package", tmp_path / "build", request.getfixturevalue(installed))
    said = run(tmp_path / "build" / "consumer", PYTHONHOME=sys.base_prefix, limit=60)
    assert said == "moored\n"


@needs_compiler
def test_extension_built_with_the_wheel_alone(tmp_path: Path) -> None:
    run(
        *("c++", "-std=c++20", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"),
        *("-I", moored.get_include(), "-I", sysconfig.get_path("include")),
        *(HERE / "wheel_only" / "module.cpp", "-o", tmp_path / "consumer.so"),
    )
    visit(tmp_path)


@needs_cmake
def test_pybind11_module(wheel: str, tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    settings = f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"
    build_with_cmake(HERE / "pybind11", tmp_path, wheel, settings)
    visit(tmp_path)


@needs_cmake
def test_nanobind_module(wheel: str, tmp_path: Path) -> None:
    nanobind = pytest.importorskip("nanobind")
    build_with_cmake(HERE / "nanobind", tmp_path, wheel, f"-Dnanobind_DIR={nanobind.cmake_dir()}")
    visit(tmp_path)


@needs_cmake
def test_extension_in_c(wheel: str, tmp_path: Path) -> None:
    build_with_cmake(HERE / "c", tmp_path, wheel)
    visit(tmp_path)


@needs_compiler
def test_cython_module(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    shutil.copytree(HERE / "cython", tmp_path / "source")
    run(
        *(sys.executable, tmp_path / "source" / "setup.py", "build_ext"),
        *("--build-lib", tmp_path, "--build-temp", tmp_path / "objects"),
    )
    visit(tmp_path)
