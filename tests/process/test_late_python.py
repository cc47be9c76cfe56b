"""A program may open libpython when it runs: each thread has CPython's thread_locals elsewhere."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from support.building import compile_extension, compile_program, needs_library
from support.processes import succeed

SOURCE = Path(__file__).with_name("late_python.cpp")


@needs_library
def test_native_threads_attach(tmp_path: Path) -> None:
    library = compile_extension(SOURCE, tmp_path, "-DLATE_LIBRARY")
    program = compile_program(SOURCE, tmp_path / "late_python", "-ldl")
    libpython = Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("INSTSONAME")
    out = succeed(program, libpython, library, PYTHONHOME=sys.base_prefix)
    assert out == "3\n"
