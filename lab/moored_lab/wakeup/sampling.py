"""Sampling: what each thread of a process used, read from /proc and so from outside of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

INTERVAL_S = 0.1

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_MINFLT, _UTIME, _STIME = 7, 11, 12  # places in /proc/.../stat, counted behind the name


class ProcessGone(Exception):
    """The sampled process is no longer there."""


@dataclass(frozen=True)
class ThreadUse:
    """What one thread used since it was born."""

    cpu_ns: int
    page_faults: int
    context_switches: int

    def since(self, earlier: ThreadUse | None) -> ThreadUse:
        """Return what was used between two readings; a thread born in between used it all."""
        if earlier is None:
            return self
        return ThreadUse(
            self.cpu_ns - earlier.cpu_ns,
            self.page_faults - earlier.page_faults,
            self.context_switches - earlier.context_switches,
        )


@dataclass(frozen=True)
class Sample:
    """All threads of a process at one moment."""

    monotonic_ns: int
    threads: dict[int, ThreadUse]


@dataclass(frozen=True)
class Usage:
    """What a process used over some time, main and the other threads apart."""

    seconds: float
    main_cpu_percent: float
    others_cpu_percent: float
    context_switches_per_s: float
    page_faults_per_s: float

    @property
    def process_cpu_percent(self) -> float:
        """The whole process, in percent of one CPU."""
        return self.main_cpu_percent + self.others_cpu_percent


def read_sample(pid: int) -> Sample:
    """Read every thread of the process; one that ends meanwhile is left out."""
    threads: dict[int, ThreadUse] = {}
    try:
        tids = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError as error:
        raise ProcessGone(f"process {pid} is gone") from error
    now = time.monotonic_ns()
    for tid in tids:
        try:
            threads[tid] = read_thread(Path(f"/proc/{pid}/task/{tid}"))
        except (OSError, IndexError):
            continue
    return Sample(now, threads)


def read_thread(folder: Path) -> ThreadUse:
    """Read one thread's folder in /proc."""
    stat = (folder / "stat").read_text().rpartition(")")[2].split()
    try:
        cpu_ns = int((folder / "schedstat").read_text().split()[0])
    except OSError:
        # A kernel without schedstat counts in ticks of 10 ms: coarse, but true over a phase.
        cpu_ns = (int(stat[_UTIME]) + int(stat[_STIME])) * _TICK_NS
    switches = sum(
        int(line.split()[1])
        for line in (folder / "status").read_text().splitlines()
        if "ctxt_switches" in line
    )
    return ThreadUse(cpu_ns, int(stat[_MINFLT]), switches)


def usage(samples: Sequence[Sample], main_tid: int) -> Usage | None:
    """Add up what was used from the first sample to the last; None with fewer than two.

    Pair by pair, so that a thread that ended in between counts up to its last sample.
    """
    if len(samples) < 2 or samples[-1].monotonic_ns <= samples[0].monotonic_ns:
        return None
    main_ns = others_ns = faults = switches = 0
    for earlier, later in pairwise(samples):
        for tid, use in later.threads.items():
            used = use.since(earlier.threads.get(tid))
            if tid == main_tid:
                main_ns += used.cpu_ns
            else:
                others_ns += used.cpu_ns
            faults += used.page_faults
            switches += used.context_switches
    elapsed_ns = samples[-1].monotonic_ns - samples[0].monotonic_ns
    seconds = elapsed_ns / 1e9
    return Usage(
        seconds=seconds,
        main_cpu_percent=100.0 * main_ns / elapsed_ns,
        others_cpu_percent=100.0 * others_ns / elapsed_ns,
        context_switches_per_s=switches / seconds,
        page_faults_per_s=faults / seconds,
    )


class Sampler:
    """Takes samples of one process, about every `interval_s`, and keeps them all."""

    def __init__(self, pid: int, interval_s: float = INTERVAL_S) -> None:
        self.pid = pid
        self.interval_s = interval_s
        self.samples: list[Sample] = []

    def take(self) -> int:
        """Take one sample now and return its place in `samples`."""
        self.samples.append(read_sample(self.pid))
        return len(self.samples) - 1

    def watch(self, seconds: float, each: Callable[[], None]) -> None:
        """Take samples for `seconds`, the last one at their end; call `each` after every one."""
        start = time.monotonic()
        steps = max(1, round(seconds / self.interval_s))
        for step in range(1, steps + 1):
            time.sleep(max(0.0, start + seconds * step / steps - time.monotonic()))
            self.take()
            each()
