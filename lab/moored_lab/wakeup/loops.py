"""Loops: the modes that this interpreter can run, and uvloop where it is installed."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from importlib.util import find_spec

from moored_lab import _server

URGENT_MODES = ("kept-urgent", "enter-urgent")


def has_uvloop() -> bool:
    """Say whether uvloop is installed."""
    return find_spec("uvloop") is not None


def new_uvloop() -> asyncio.AbstractEventLoop:
    """Make a loop of uvloop's."""
    loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
    return loop


def impossible() -> dict[str, str]:
    """Return the modes that cannot run here, each with the reason and what to do."""
    reasons = {}
    if sys.version_info < (3, 13):
        reasons["channel-interrupt"] = (
            "an interrupt needs Python 3.13 or later: choose another --python, or channel-adaptive"
        )
    if why := _server.why_not_urgent():
        reasons |= dict.fromkeys(URGENT_MODES, f"the GIL cannot be asked for: {why}")
    if not has_uvloop():
        reasons["channel-uvloop"] = "uvloop is not installed: pip install uvloop"
    return reasons


def possible() -> list[str]:
    """Return the names of the modes that can run here."""
    return [mode for mode in _server.modes() if mode not in impossible()]
