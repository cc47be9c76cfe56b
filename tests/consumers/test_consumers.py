"""Builds small real programs against the installed moored, as its users would, and runs them."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from building import CHECKOUT, FROM_WHEEL, HERE
from support.building import build, build_with_cmake, needs_cmake, needs_compiler, needs_library
from support.limits import HANG_S
from support.processes import finish

import moored


def visit(folder: Path) -> None:
    """Have the module that was built into this folder call back from its thread."""
    said = build(
        sys.executable, HERE / "visits.py", "consumer", PYTHONPATH=str(folder), limit=HANG_S
    )
    assert said == "moored\n"


def convert_packets(folder: Path) -> None:
    """Have the module send objects of its own from a native thread, by its binding's casters."""
    script = """
import consumer, moored
channel = moored.Channel(consumer.packets(3))
assert [packet.number for batch in channel for packet in batch] == [0, 1, 2]
"""
    build(sys.executable, "-c", script, PYTHONPATH=str(folder), limit=HANG_S)


def share_the_cache(folder: Path) -> None:
    """Have the module and the package install a chunk cache each: it is one and the same."""
    script = """
import os, sys, threading, time, consumer, moored
def use():
    for _ in range(9):
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        while len(os.listdir("/proc/self/task")) > 1:
            time.sleep(0.001)  # Python counts it as joined before it has let go of its chunk
if sys.version_info >= (3, 11):
    assert consumer.install() == 0 and moored.install() and consumer.install() == 0
    use()
    assert consumer.chunk_hits() == moored.stats()["chunk_hits"] > 0
else:
    assert consumer.install() == 9  # MOORED_NOTHING_TO_GAIN
"""
    build(sys.executable, "-c", script, PYTHONPATH=str(folder), limit=HANG_S)


def installed_under(prefix: Path) -> str:
    """Install moored with cmake --install, and say where find_package finds it."""
    build("cmake", "-S", CHECKOUT, "-B", prefix / "build")
    build("cmake", "--install", prefix / "build", "--prefix", prefix)
    return f"-DCMAKE_PREFIX_PATH={prefix}"


@needs_cmake
@needs_library
@pytest.mark.parametrize("package", ["wheel", "prefix"])
def test_program_that_embeds_python(package: str, tmp_path: Path) -> None:
    where = FROM_WHEEL if package == "wheel" else installed_under(tmp_path / "prefix")
    build_with_cmake(HERE / "find_package", tmp_path / "build", where)
    said = build(tmp_path / "build" / "consumer", PYTHONHOME=sys.base_prefix, limit=HANG_S)
    assert said == "moored\n"


@needs_compiler
def test_extension_built_with_the_wheel_alone(tmp_path: Path) -> None:
    build(
        *("c++", "-std=c++20", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"),
        *("-I", moored.get_include(), "-I", sysconfig.get_path("include")),
        *(HERE / "wheel_only" / "module.cpp", "-o", tmp_path / "consumer.so"),
    )
    visit(tmp_path)


@needs_cmake
def test_pybind11_module(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    where = f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"
    build_with_cmake(HERE / "pybind11", tmp_path, FROM_WHEEL, where)
    visit(tmp_path)
    convert_packets(tmp_path)


@needs_cmake
def test_nanobind_module(tmp_path: Path) -> None:
    nanobind = pytest.importorskip("nanobind")
    where = f"-Dnanobind_DIR={nanobind.cmake_dir()}"
    build_with_cmake(HERE / "nanobind", tmp_path, FROM_WHEEL, where)
    visit(tmp_path)
    convert_packets(tmp_path)


@needs_cmake
def test_extension_in_c(tmp_path: Path) -> None:
    build_with_cmake(HERE / "c", tmp_path, FROM_WHEEL)
    visit(tmp_path)
    share_the_cache(tmp_path)


@needs_cmake
@pytest.mark.parametrize("way", ["add_subdirectory", "FetchContent"])
def test_extension_in_c_in_a_project_that_has_moored_in_it(way: str, tmp_path: Path) -> None:
    where = f"-DMOORED_CHECKOUT={CHECKOUT}"
    build_with_cmake(HERE / "in_tree", tmp_path, f"-DBY={way}", where)
    visit(tmp_path)
    share_the_cache(tmp_path)


@needs_cmake
def test_a_project_without_python_can_have_moored_in_it(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\n"
        "project(none LANGUAGES CXX)\n"
        "set(CMAKE_DISABLE_FIND_PACKAGE_Python TRUE)\n"
        f"add_subdirectory({CHECKOUT} moored)\n"
        "if(NOT TARGET moored::moored OR TARGET moored::c)\n"
        "  message(FATAL_ERROR wrong)\n"
        "endif()\n"
    )
    said = build("cmake", "-S", tmp_path, "-B", tmp_path / "build")
    assert "moored: no moored::c, for there are no headers of Python 3.10 or later" in said


@needs_compiler
def test_extension_in_c_by_setuptools_alone(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    source.mkdir()
    for file in (HERE / "setuptools" / "setup.py", HERE / "c" / "module.c"):
        shutil.copy(file, source)
    build(
        *(sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path / "built"),
        folder=source,
    )
    visit(tmp_path / "built")
    share_the_cache(tmp_path / "built")


@needs_compiler
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-std=c++14"], "needs C++17: compile it with -std=c++17"),
        (["-std=c++17", "-fno-exceptions"], "needs C++ exceptions"),
        (["-std=c++17", "-DPy_LIMITED_API=0x030a0000"], "needs all of CPython's API"),
    ],
)
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_what_the_c_source_cannot_be_compiled_with_is_one_error(
    compiler: str, flags: list[str], said: str
) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    words = [compiler, "-fsyntax-only", *flags, moored.get_c_source()]
    words += ["-I", moored.get_include(), "-I", sysconfig.get_path("include")]
    done = finish(*words)
    assert done.code != 0
    errors = [line for line in done.err.splitlines() if "error:" in line]
    assert len(errors) == 1, done.err
    assert said in errors[0]


@needs_compiler
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-std=c++14"], "needs C++17"),
        (["-std=c++17", "-fno-exceptions"], "needs C++ exceptions"),
        (["-std=c++17", "-DPy_LIMITED_API=0x030a0000"], "needs CPython's full API"),
    ],
)
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_what_the_headers_cannot_be_compiled_with_ends_in_one_error(
    compiler: str, flags: list[str], said: str, tmp_path: Path
) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    source = tmp_path / "source.cpp"
    source.write_text("#include <moored/moored.hpp>\n")
    words = [compiler, "-fsyntax-only", *flags, source]
    words += ["-I", moored.get_include(), "-I", sysconfig.get_path("include")]
    done = finish(*words)
    assert done.code != 0
    errors = [line for line in done.err.splitlines() if "error:" in line]
    assert said in errors[0]
    assert len(errors) == 2, done.err
    assert "that_error_ends_it" in errors[1]


@needs_compiler
def test_an_int_that_does_not_fit_has_no_converter(tmp_path: Path) -> None:
    source = tmp_path / "source.cpp"
    source.write_text("#include <moored/moored.hpp>\nmoored::channel<__int128> wide;\n")
    words = ["c++", "-fsyntax-only", "-std=gnu++17", source]
    words += ["-I", moored.get_include(), "-I", sysconfig.get_path("include")]
    done = finish(*words)
    assert done.code != 0
    assert "an int of more than 64 bits has no converter" in done.err


@needs_compiler
def test_cython_module(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    shutil.copytree(HERE / "cython", tmp_path / "source")
    build(
        *(sys.executable, tmp_path / "source" / "setup.py", "build_ext"),
        *("--build-lib", tmp_path, "--build-temp", tmp_path / "objects"),
    )
    visit(tmp_path)


@needs_compiler
@pytest.mark.skipif(not shutil.which("rustc"), reason="no Rust compiler here")
def test_rust_library(tmp_path: Path) -> None:
    build(
        *("c++", "-std=c++20", "-c", "-fPIC", "-fvisibility=hidden"),
        *("-I", moored.get_include(), "-I", sysconfig.get_path("include")),
        *(moored.get_c_source(), "-o", tmp_path / "moored_c.o"),
    )
    build("ar", "rcs", tmp_path / "libmoored_c.a", tmp_path / "moored_c.o")
    library = tmp_path / "libconsumer.so"
    build(
        *("rustc", "--edition", "2021", "--crate-type", "cdylib", "-D", "warnings"),
        *("-L", tmp_path, "-l", "static=moored_c", "-l", "stdc++", "-o", library),
        HERE / "rust" / "consumer.rs",
    )
    script = f"""
import ctypes, threading
call = ctypes.PyDLL({str(library)!r}).call_on_a_thread
here = threading.local()
seen = []
def visit():
    here.visits = getattr(here, "visits", 0) + 1
    seen.append(here.visits)
assert call(ctypes.py_object(visit), 3) == 3
assert seen == [1, 2, 3], seen
"""
    build(sys.executable, "-c", script, limit=HANG_S)
