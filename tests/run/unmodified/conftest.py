"""Builds the pool of native threads that some programs use."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("both_ways")

from both_ways import SCRIPTS  # noqa: E402
from support.building import compile_library  # noqa: E402


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build scripts/pool.c; its path is what scripts/pool.py reads from POOL_LIBRARY."""
    return str(compile_library(SCRIPTS / "pool.c", tmp_path_factory.mktemp("pool") / "libpool.so"))
