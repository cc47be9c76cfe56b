"""Hazards of native threads: how they come, go, wait, and lock."""

from __future__ import annotations

from hazard import Hazard

HAZARDS: list[Hazard] = []
