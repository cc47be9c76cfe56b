"""Finding: what a rule has found, what it costs, and the line to paste against it."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from moored.doctor import words
from moored.doctor.recording import Recording

LEAST_SHARE = 0.005
"""Of the process's CPU time, or of all time where that is not known: less is not worth a line."""

LEAST_NS = 10_000_000
"""What costs less in all is not worth a line either, however short the run."""

OF_WAITING = ("busy-main", "busy-threads", "long-holds")
"""The rules whose cost is time that was waited."""


@dataclass(frozen=True)
class Finding:
    """One finding.

    `cost_ns` is CPU time, or time that was waited, or 0 where what is lost is not time at all.
    `share_of_cpu` is 0 for the latter two.
    `remedy` is a line to paste, `why` says what happens and what the remedy does.
    """

    rule: str
    title: str
    cost_ns: int
    share_of_cpu: float
    site_keys: tuple[int, ...]
    remedy: str
    why: str

    @property
    def cost(self) -> str:
        """Say the cost in words; empty when it is none of time."""
        if not self.cost_ns:
            return ""
        time = words.time(self.cost_ns)
        if self.rule in OF_WAITING:
            return f"{time} of waiting"
        return (
            f"{time}, {words.percent(self.share_of_cpu)} of the CPU" if self.share_of_cpu else time
        )


def is_worth_it(recording: Recording, cost_ns: int) -> bool:
    """Tell whether a cost in CPU time is worth a finding."""
    of_all = recording.cpu_ns if recording.cpu_ns > 0 else 1e9 * recording.seconds
    return cost_ns >= LEAST_NS and cost_ns >= LEAST_SHARE * of_all


def rerun(recording: Recording, *options: str) -> str:
    """Return the line that runs the recorded program again under `moored run`."""
    try:
        line = shlex.split(recording.command)
    except ValueError:
        line = recording.command.split()
    if line and re.fullmatch(r"python[\d.]*t?", os.path.basename(line[0])):
        line = line[1:]
    return shlex.join(["moored", "run", *options, *(line or ["app.py"])])
