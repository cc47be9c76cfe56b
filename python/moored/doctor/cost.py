"""Cost: what temporary thread states cost, as far as the recording shows it."""

from __future__ import annotations

from .recording import Counts, Recording

KEPT_CALL_NS = 60
"""Attach and release with a kept state: what no remedy saves."""


def of_temporary_states(recording: Recording, counts: Counts) -> int:
    """Return the CPU time that these calls' temporary states took, in ns.

    It is the attaching without the waits, less the calls that found a state, and the chunks.
    """
    if not counts.temporary_states:
        return 0
    found_a_state = max(0, counts.calls - counts.temporary_states)
    work = max(0, counts.work_ns - found_a_state * KEPT_CALL_NS)
    return work + round(counts.chunks * recording.chunk_cost_ns)


def of_attaching(recording: Recording, counts: Counts) -> int:
    """Return what these calls took to enter and to leave, waits and chunks included, in ns."""
    return counts.attach_ns + round(counts.chunks * recording.chunk_cost_ns)
