"""Export: collapsed stacks, a line each with its time in ns, as flame graph tools read them."""

from __future__ import annotations

from . import stacks
from .recording import Recording


def export(recording: Recording) -> str:
    """Return the lines: thread, frames from the outermost on, and the time."""
    sums: dict[str, int] = {}
    for stack in stacks.of(recording):
        line = ";".join(map(_field, (stack.thread, *stack.frames)))
        sums[line] = sums.get(line, 0) + stack.ns
    return "".join(f"{line} {ns}\n" for line, ns in sorted(sums.items()))


def _field(text: str) -> str:
    """Return a name without the sign that divides frames."""
    return text.replace(";", ",")
