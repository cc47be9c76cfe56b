"""Marks tests by where they are, so that tools/test.py can select those of every interpreter."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# A shell starts a job in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(TESTS)
        if place.parts[0] in ("consumers", "docs"):
            item.add_marker(pytest.mark.consumer)
        elif place.name.startswith(("test_lab", "test_bench")):
            item.add_marker(pytest.mark.lab)
        elif "unmodified" in place.parts and not (
            "debians" in item.name or place.name == "test_processes.py"
        ):
            item.add_marker(pytest.mark.program)
