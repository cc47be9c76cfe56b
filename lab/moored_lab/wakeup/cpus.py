"""CPUs: what runs where, so that the sender and the controller do not disturb the server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Places:
    """The CPUs of the server and those of everything else; empty means wherever."""

    server: tuple[int, ...] = ()
    others: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Say it as the output does."""
        if not self.server:
            return "server and load sender not pinned"
        return f"server on {_named(self.server)}, load sender on {_named(self.others)}"


def places(pin: bool) -> Places:
    """Give the last CPU to the load sender and all others to the server.

    With fewer than three CPUs nothing is pinned: on a single CPU the server's threads never run at
    the same time, and that is another experiment.
    """
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    return Places(cpus[:-1], cpus[-1:]) if pin and len(cpus) > 2 else Places()


@contextmanager
def staying_on(cpus: Sequence[int]) -> Iterator[None]:
    """Keep the calling thread on `cpus` for a while; empty lets it be."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _named(cpus: Sequence[int]) -> str:
    if len(cpus) > 2 and cpus[-1] - cpus[0] == len(cpus) - 1:
        return f"CPUs {cpus[0]} to {cpus[-1]}"
    return ("CPU " if len(cpus) == 1 else "CPUs ") + ", ".join(map(str, cpus))
