"""Runs commands and builds with CMake against the installed moored, for the tests beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from limits import BUILD_S

import moored

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent

needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler here")
needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake here")
needs_library = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_ENABLE_SHARED"), reason="this Python cannot be embedded"
)

FROM_WHEEL = f"-Dmoored_DIR={moored.get_cmake_dir()}"


def run(
    *words: str | Path,
    limit: float = BUILD_S,
    stdin: str = "",
    folder: Path | None = None,
    **variables: str,
) -> str:
    """Run a command and return what it printed; when it fails, that is the reason given."""
    done = subprocess.run(
        [str(word) for word in words],
        env=os.environ | variables,
        cwd=folder,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def build_with_cmake(source: Path, folder: Path, *settings: str) -> None:
    """Configure and build one project, for this interpreter."""
    run(
        *("cmake", "-S", source, "-B", folder, "-DCMAKE_BUILD_TYPE=Debug"),
        *(f"-DPython_EXECUTABLE={sys.executable}", *settings),
    )
    run("cmake", "--build", folder, "--parallel", "2")
