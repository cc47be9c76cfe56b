"""Checks that includes and imports go down only, as include/moored/README.md and the design say."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
ROOT = CHECKOUT / "include" / "moored"
FRONT, INTEROP, STUDY, BASE = ".", "interop", "study", "detail"
CPYTHON, GATE, STATES, CHANNEL = (
    f"detail/{one}" for one in ("cpython", "gate", "states", "channel")
)
BELOW: dict[str, set[str]] = {
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
# What the Python of a folder must not import.
ABOVE = {
    "python/moored": r"moored_lab\b",
    "lab/moored_lab/report": r"moored\.cli\b|moored_lab\.(commands|wakeup|bench|torture)\b",
    "lab/moored_lab/wakeup": r"moored_lab\.(commands|bench|torture)\b",
    "lab/moored_lab/bench": r"moored_lab\.(commands|torture)\b",
    "lab/moored_lab/torture": r"moored_lab\.commands\b",
}


def wrong_includes() -> list[str]:
    """Name each header that includes one of its own layer's users."""
    wrong = []
    for header in sorted(ROOT.rglob("*.hpp")):
        layer = str(header.parent.relative_to(ROOT))
        for name in re.findall(r'#include "([^"]+)"', header.read_text()):
            if "." not in name:
                continue  # the one that is not there, see config.hpp
            included = Path(os.path.normpath(header.parent / name))
            its_layer = str(included.parent.relative_to(ROOT))
            is_below = its_layer in BELOW[layer] or its_layer == layer
            if layer == CHANNEL and its_layer == FRONT:
                is_below = included.name in BELOW_CHANNELS
            if not is_below or not included.exists():
                wrong.append(f"include/moored/{header.relative_to(ROOT)} includes {name}")
    return wrong


def wrong_imports() -> list[str]:
    """Name each module that imports one of its users."""
    wrong = []
    for folder, users in ABOVE.items():
        for module in sorted((CHECKOUT / folder).rglob("*.py")):
            for line in module.read_text().splitlines():
                if re.match(rf"\s*(from|import) ({users})", line):
                    wrong.append(f"{module.relative_to(CHECKOUT)}: {line.strip()}")
    return wrong


def wrong_first_lines() -> list[str]:
    """Name each header whose first line does not give its path and its job."""
    return [
        f"include/moored/{header.relative_to(ROOT)}: its first line gives no name and job"
        for header in sorted(ROOT.rglob("*.hpp"))
        if not header.read_text().startswith(f"// moored/{header.relative_to(ROOT)}: ")
    ]


def main() -> int:
    """Name what is wrong; exit code 1 when something is."""
    wrong = wrong_includes() + wrong_imports() + wrong_first_lines()
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
