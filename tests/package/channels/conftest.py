"""The extension channel_source, built once for this interpreter by pybind11."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.building import compile_extension, load_extension
from support.processes import Ending, run_script


@pytest.fixture(scope="session")
def extension_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with channel_source in it."""
    source = Path(__file__).with_name("channel_source.cpp")
    return compile_extension(source, tmp_path_factory.mktemp("channel_source")).parent


@pytest.fixture(scope="session")
def native(extension_folder: Path) -> Any:
    """The module channel_source, in this process."""
    return load_extension(extension_folder / "channel_source.so")


@pytest.fixture
def end_of(extension_folder: Path) -> Callable[[str], Ending]:
    """Run a script that may import channel_source, and see how its process ends."""
    return lambda script: run_script(script, PYTHONPATH=str(extension_folder))
