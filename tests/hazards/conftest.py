"""The extension hazard_threads, built once for this interpreter."""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
from pathlib import Path

import pytest
from hazard import Child
from limits import BUILD_S

import moored

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def child(tmp_path_factory: pytest.TempPathFactory) -> Child:
    """Child processes that find the extension."""
    folder = tmp_path_factory.mktemp("hazard_threads")
    includes = [moored.get_include(), sysconfig.get_path("include")]
    if importlib.util.find_spec("pybind11"):
        import pybind11

        includes.append(pybind11.get_include())
    options = ("-O2", "-shared", "-fPIC", "-pthread", "-Wall", "-Wextra", "-Werror")
    # Without a PLT and bound at once, its references to Python are read-only: hazard 26.
    bound = ("-fno-plt", "-Wl,-z,relro,-z,now")
    for words in (
        [
            *("c++", "-std=c++20", *options, "-fvisibility=hidden", *bound),
            *(word for include in includes for word in ("-isystem", include)),
            *(str(HERE / "hazard_threads.cpp"), "-o", str(folder / "hazard_threads.so")),
        ],
        [
            *("c++", "-std=c++20", *options),
            *(str(HERE / "hazard_preload.cpp"), "-o", str(folder / "hazard_preload.so"), "-ldl"),
        ],
    ):
        subprocess.run(words, check=True, timeout=BUILD_S)
    return Child(folder)
