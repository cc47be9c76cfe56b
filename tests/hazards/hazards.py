"""All hazards, in the order of their numbers."""

from __future__ import annotations

import hazards_of_building
import hazards_of_ending
import hazards_of_states
import hazards_of_threads

HAZARDS = sorted(
    [
        *hazards_of_ending.HAZARDS,
        *hazards_of_states.HAZARDS,
        *hazards_of_threads.HAZARDS,
        *hazards_of_building.HAZARDS,
    ],
    key=lambda hazard: (int(hazard.number.rstrip("b")), hazard.number),
)
