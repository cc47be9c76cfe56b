"""Hazards of what is built and bound: private fields, allocators, symbols."""

from __future__ import annotations

from hazard import Hazard

HAZARDS: list[Hazard] = []
