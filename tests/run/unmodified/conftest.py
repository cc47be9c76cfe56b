"""Builds the pool of native threads that some programs use."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.register_assert_rewrite("both_ways")

from both_ways import SCRIPTS  # noqa: E402


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build scripts/pool.c; its path is what scripts/pool.py reads from POOL_LIBRARY."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler here")
    library: Path = tmp_path_factory.mktemp("pool") / "libpool.so"
    words = ["cc", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*words, SCRIPTS / "pool.c", "-o", library], check=True, timeout=100)
    return str(library)
