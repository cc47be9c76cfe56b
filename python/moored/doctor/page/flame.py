"""Flame: the tree that a flame graph draws, without what is too narrow to be seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from moored.doctor.stacks import Stack

LEAST_SHARE = 0.0005
"""Of the whole: narrower boxes are left out, and their time shows as their caller's."""


@dataclass
class Box:
    """A frame with all that it led to."""

    ns: int = 0
    below: dict[str, Box] = field(default_factory=dict)


def tree(stacks: Iterable[Stack]) -> Box:
    """Return the root over all stacks."""
    root = Box()
    for stack in stacks:
        root.ns += stack.ns
        box = root
        for name in stack.frames:
            box = box.below.setdefault(name, Box())
            box.ns += stack.ns
    return root


def as_json(root: Box) -> list[Any]:
    """Return nested lists of a name's number, ns and boxes, behind the list of the names."""
    names: dict[str, int] = {}
    least = LEAST_SHARE * root.ns

    def lists(name: str, box: Box) -> list[Any]:
        wide = sorted(box.below.items(), key=lambda one: -one[1].ns)
        below = [lists(its, one) for its, one in wide if one.ns >= least]
        return [names.setdefault(name, len(names)), box.ns, below]

    made = lists("all native threads", root)
    return [list(names), made]
