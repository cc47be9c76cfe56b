"""The extension channel_source, built once for this interpreter by pybind11."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pybind11
import pytest
from limits import BUILD_S, HANG_S

import moored


@dataclass
class Ending:
    """What a process left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def extension_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with channel_source in it."""
    folder = tmp_path_factory.mktemp("channel_source")
    source = Path(__file__).with_name("channel_source.cpp")
    includes = [moored.get_include(), pybind11.get_include(), sysconfig.get_path("include")]
    subprocess.run(
        [
            *("c++", "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread"),
            *("-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
            *(word for include in includes for word in ("-isystem", include)),
            *(str(source), "-o", str(folder / "channel_source.so")),
        ],
        check=True,
        timeout=BUILD_S,
    )
    return folder


@pytest.fixture(scope="session")
def native(extension_folder: Path) -> Any:
    """The module channel_source, in this process."""
    path = extension_folder / "channel_source.so"
    spec = importlib.util.spec_from_file_location("channel_source", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["channel_source"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def end_of(extension_folder: Path) -> Callable[[str], Ending]:
    """Run a script that may import channel_source, and see how its process ends."""

    def run(script: str) -> Ending:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script)],
            env=os.environ | {"PYTHONPATH": str(extension_folder)},
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        return Ending(done.returncode, done.stdout, done.stderr)

    return run
