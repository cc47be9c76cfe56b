"""The headers include downward only, as include/moored/README.md says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import moored

ROOT = Path(moored.get_include(), "moored")
FRONT, INTEROP, STUDY, BASE = ".", "interop", "study", "detail"
CPYTHON, GATE, STATES, CHANNEL = (
    f"detail/{one}" for one in ("cpython", "gate", "states", "channel")
)
BELOW = {
    FRONT: {CHANNEL, STUDY, STATES, GATE, CPYTHON, BASE},
    INTEROP: {BASE},
    # A channel stands on attach, and an event on its converter.
    CHANNEL: {FRONT, STATES, GATE, CPYTHON, BASE},
    STUDY: {STATES, GATE, CPYTHON, BASE},
    STATES: {GATE, CPYTHON, BASE},
    GATE: {CPYTHON, BASE},
    CPYTHON: {BASE},
    BASE: set(),
}
BELOW_CHANNELS = {"attach.hpp", "converter.hpp", "delivery.hpp", "reference.hpp"}


def folder(path: Path) -> str:
    return str(path.parent.relative_to(ROOT))


def test_headers_include_downward_only() -> None:
    wrong = []
    for header in ROOT.rglob("*.hpp"):
        for name in re.findall(r'#include "([^"]+)"', header.read_text()):
            if "." not in name:
                continue  # the one that is not there, see config.hpp
            included = Path(os.path.normpath(header.parent / name))
            here, there = folder(header), folder(included)
            is_below = there in BELOW[here] or there == here
            if here == CHANNEL and there == FRONT:
                is_below = included.name in BELOW_CHANNELS
            if not is_below or not included.exists():
                wrong.append(f"{header.relative_to(ROOT)} includes {name}")
    assert wrong == []


def test_every_header_says_its_name_and_what_it_is() -> None:
    for header in ROOT.rglob("*.hpp"):
        first = header.read_text().splitlines()[0]
        assert first.startswith(f"// moored/{header.relative_to(ROOT)}: "), first
