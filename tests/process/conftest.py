"""The extension native_threads, built once for this interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.building import compile_extension
from support.processes import Ending, run_script


@pytest.fixture(scope="session")
def extension_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with native_threads in it."""
    source = Path(__file__).with_name("native_threads.cpp")
    return compile_extension(source, tmp_path_factory.mktemp("native_threads")).parent


@pytest.fixture
def end_of(extension_folder: Path) -> Callable[[str], Ending]:
    """Run a script that may import native_threads, and see how its process ends."""
    return lambda script: run_script(script, PYTHONPATH=str(extension_folder))
