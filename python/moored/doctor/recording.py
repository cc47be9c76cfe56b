"""Recording: what was recorded of one process; between the recorder and all reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["main", "python", "foreign", "other"]
"""Foreign: native code gave it a thread state. Other: it neither entered Python nor waited."""
End = Literal[
    "exited",
    "killed",
    "crashed",
    "ended",
    "replaced by another program",
    "detached",
    "running",
    "cut short",
]
"""How a process ended, in the words of the reports. `ended` is one of the first three; only the
process's parent was told which."""
"""Detached: it was recorded for a while, and went on."""

OTHERS = 0
"""The thread number of all threads that have none of their own in a sample."""


@dataclass(frozen=True)
class Frame:
    """A place in native code: `offset` is within `symbol`, without one within the module."""

    module: str
    symbol: str = ""
    offset: int = 0
    build_id: str = ""


@dataclass(frozen=True)
class Counts:
    """How often native code attached, and how long that took.

    `attach_ns` is spent in attach and release, waits for the GIL included; `wait_ns` is the part of
    it that waits, and `wait_for_main_ns` the part of that while the main thread held the GIL.
    `hold_ns` is from being in until letting go. `chunks` counts data-stack chunks that were mapped,
    `states_with_locals` temporary states that took thread-locals along when they were freed.
    """

    calls: int = 0
    temporary_states: int = 0
    attach_ns: int = 0
    wait_ns: int = 0
    wait_for_main_ns: int = 0
    longest_wait_ns: int = 0
    hold_ns: int = 0
    longest_hold_ns: int = 0
    chunks: int = 0
    states_with_locals: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Sum up; the longest stay the longest."""
        return Counts(
            self.calls + other.calls,
            self.temporary_states + other.temporary_states,
            self.attach_ns + other.attach_ns,
            self.wait_ns + other.wait_ns,
            self.wait_for_main_ns + other.wait_for_main_ns,
            max(self.longest_wait_ns, other.longest_wait_ns),
            self.hold_ns + other.hold_ns,
            max(self.longest_hold_ns, other.longest_hold_ns),
            self.chunks + other.chunks,
            self.states_with_locals + other.states_with_locals,
        )

    @property
    def work_ns(self) -> int:
        """What attaching itself took, without the waits."""
        return max(0, self.attach_ns - self.wait_ns)

    @property
    def wait_for_others_ns(self) -> int:
        """What was waited while another thread than main held the GIL."""
        return max(0, self.wait_ns - self.wait_for_main_ns)


@dataclass(frozen=True)
class Site:
    """Where native code enters Python; `frames` are the caller of the attach, then its callers.

    `enters_by_frame`: the first of them is a function by which several callers enter.
    """

    key: int
    binding: str
    frames: tuple[Frame, ...]
    counts: Counts
    enters_by_frame: bool = False


@dataclass(frozen=True)
class Thread:
    """A thread; `sites` has, by the site's key, what it did there.

    `loop_wakes` counts how often it woke an event loop.
    """

    tid: int
    name: str
    kind: Kind
    counts: Counts
    cpu_ns: int = 0
    minor_faults: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0
    sites: tuple[tuple[int, Counts], ...] = ()
    exited: bool = False
    loop_wakes: int = 0


@dataclass(frozen=True)
class Sample:
    """What happened in the interval since the sample before; `cpu_percent` is by thread number."""

    at_s: float
    cpu_percent: Mapping[int, float]
    temporary_states: int = 0
    gil_wait_ns: int = 0


@dataclass(frozen=True)
class Recording:
    """One process.

    `command` is the program and its arguments as in a shell. `per_call_cost_ns` is what recording
    made a call dearer. `kept`: it ran under `moored run`. `locals_lost` counts temporary states
    that took thread-locals along, of all threads, `threads_of_one_call` threads
    that called once and ended, `threadsafe_calls` the wakes of an event loop by
    `call_soon_threadsafe`.

    `chunk_cost_ns` is what mapping and touching one data-stack chunk took when the process began;
    0 where that was not measured. That it is unmapped is part of `attach_ns`. `sees_waits` and
    `sees_holders`: whether waits for the GIL, and the thread that had it meanwhile, could be seen;
    `sees_chunks`: whether chunks could, of which there are none up to 3.10.
    """

    path: str
    command: str
    pid: int
    parent_pid: int
    python: str
    moored: str
    machine: Mapping[str, object]
    started_unix_s: float
    seconds: float
    end: End
    cpu_ns: int
    per_call_cost_ns: float
    kept: bool
    urgent: bool
    sites: tuple[Site, ...]
    threads: tuple[Thread, ...]
    samples: tuple[Sample, ...] = ()
    late_attaches: int = 0
    locals_lost: int = 0
    threads_of_one_call: int = 0
    threadsafe_calls: int = 0
    records_lost: int = 0
    switch_interval_s: float = 0.005
    chunk_cost_ns: float = 0.0
    sees_waits: bool = True
    sees_holders: bool = True
    sees_chunks: bool = True

    @property
    def total(self) -> Counts:
        """All sites together: everything by which native code entered Python."""
        return sum((site.counts for site in self.sites), Counts())

    @property
    def recording_ns(self) -> int:
        """What the recording itself cost."""
        return round(self.total.calls * self.per_call_cost_ns)

    def share_of_cpu(self, ns: float) -> float:
        """Return which part of the process's CPU time `ns` is; 0 when that is not known."""
        return ns / self.cpu_ns if self.cpu_ns > 0 else 0.0
