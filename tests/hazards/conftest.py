"""The extension hazard_threads, built once for this interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
from hazard import Child
from support.building import compile_extension, compile_library

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def child(tmp_path_factory: pytest.TempPathFactory) -> Child:
    """Child processes that find the extension."""
    folder = tmp_path_factory.mktemp("hazard_threads")
    # Without a PLT and bound at once, its references to Python are read-only: hazard 26.
    compile_extension(HERE / "hazard_threads.cpp", folder, "-fno-plt", "-Wl,-z,relro,-z,now")
    compile_library(HERE / "hazard_preload.cpp", folder / "hazard_preload.so", "-ldl")
    return Child(folder)
