"""Background: how much the rest of the machine worked meanwhile; a busy hour proves nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DISTURBED_PERCENT = 30.0
"""From here on a run says that its numbers are disturbed."""

_USER, _NICE, _SYSTEM, _STEAL = 1, 2, 3, 8  # places in the first line of /proc/stat
_UTIME, _STIME = 11, 12  # places in /proc/PID/stat, counted behind the name


@dataclass(frozen=True)
class Ticks:
    """CPU time of the whole machine and that of our own processes, in seconds."""

    at_s: float
    machine_s: float
    ours_s: float

    def background_percent(self, later: Ticks) -> float:
        """Return what everything else used until `later`, in percent of one CPU."""
        others_s = (later.machine_s - self.machine_s) - (later.ours_s - self.ours_s)
        return max(0.0, 100.0 * others_s / max(later.at_s - self.at_s, 1e-9))


def read_ticks(pids: Sequence[int]) -> Ticks:
    """Read the machine and our processes: this one and `pids`, while they live."""
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    line = Path("/proc/stat").read_text().splitlines()[0].split()
    machine = sum(int(line[at]) for at in (_USER, _NICE, _SYSTEM, _STEAL))
    ours = sum(_process_ticks(pid) for pid in (os.getpid(), *pids))
    return Ticks(time.monotonic(), machine * tick_s, ours * tick_s)


def _process_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[_UTIME]) + int(fields[_STIME])
