"""Running: starts a program under the recorder, and watches its threads' CPU from outside.

From outside, because a thread for it in the process would be one more thread there: os.fork()
warns of it, and the GIL would have one more taker.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moored.cli import run as launcher

from . import capture

INTERVAL_S = 0.1
PATIENCE_S = 5.0
"""How long a program has after each request to end, when its time is over."""


@dataclass(frozen=True)
class Plan:
    """What is recorded, and how."""

    target: tuple[str, ...]
    """As `moored run` takes it: a script, -m MODULE, -c CODE or --exec PROGRAM, and its words."""
    record: Path
    """Each process is recorded into this name with its number behind it."""
    options: tuple[str, ...] = ("--stock",)
    children: bool = False
    seconds: float | None = None


@dataclass(frozen=True)
class Ending:
    """What became of the program."""

    code: int
    captures: tuple[Path, ...]
    """That of the program itself first; none where it has no recorder in it."""


def run(plan: Plan) -> Ending:
    """Run the program to its end. Its streams are this process's; Ctrl-C is its own affair."""
    command = launcher.command(
        *(f"--record={plan.record}", f"--command={shlex.join(plan.target)}"),
        *(() if plan.children else ("--no-children",)),
        *plan.options,
        *plan.target,
    )
    with _signals_left_to_the_child():
        child = subprocess.Popen(command)
        with _passing_on(child):
            _watch(child, plan)
    mine = Path(f"{plan.record}.{child.pid}")
    for path in plan.record.parent.glob(f"{plan.record.name}.*"):
        if path.suffix[1:].isdigit() and not capture.has_python(path):
            path.unlink()  # a shell, or whatever else the program started
    others = sorted(
        path
        for path in plan.record.parent.glob(f"{plan.record.name}.*")
        if path != mine and path.suffix[1:].isdigit()
    )
    captures = ([mine] if mine.exists() else []) + (others if plan.children else [])
    code = child.returncode
    return Ending(128 - code if code < 0 else code, tuple(captures))


@contextlib.contextmanager
def _signals_left_to_the_child() -> Iterator[None]:
    """Ctrl-C reaches the program as well, as one of the terminal's group."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _passing_on(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass on what a supervisor sends to end the program."""

    def pass_on(number: int, _: Any) -> None:
        with contextlib.suppress(OSError):
            child.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield
    finally:
        for number, what in before.items():
            signal.signal(number, what)


def _watch(child: subprocess.Popen[bytes], plan: Plan) -> None:
    """Sample the program until it ends, or its time is over."""
    begun = time.monotonic()
    ends = [] if plan.seconds is None else [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    due = begun + (plan.seconds or 0)
    used_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    sampler = Sampler(child.pid, Path(f"{plan.record}.{child.pid}"))
    while True:
        try:
            child.wait(INTERVAL_S)
        except subprocess.TimeoutExpired:
            sampler.take(time.monotonic() - begun)
            if ends and time.monotonic() >= due:
                child.send_signal(ends.pop(0))
                due = time.monotonic() + PATIENCE_S
            continue
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = used.ru_utime + used.ru_stime - used_before.ru_utime - used_before.ru_stime
        sampler.finish(time.monotonic() - begun, child.returncode, cpu_s)
        return


class Sampler:
    """Appends to a capture what the threads of its process have used."""

    def __init__(self, pid: int, path: Path, is_late: bool = False) -> None:
        """With `is_late` what the process has used by now does not count."""
        self._tasks = Path(f"/proc/{pid}/task")
        self._path = path
        self._said_machine = False
        self._before = self._usages() if is_late else {}

    def take(self, at_s: float) -> None:
        """Append one sample; the file is there once the recorder has begun."""
        counted = capture.counted_so_far(self._path)
        if counted is None:
            return
        if not self._said_machine:
            self._append({"machine": machine()})
            self._said_machine = True
        threads = self._usages()
        for tid, used in self._before.items():
            if tid in threads:
                name, *now = threads[tid]
                pairs = zip(now, used[1:], strict=True)
                threads[tid] = [name, *(max(0, after - before) for after, before in pairs)]
        states, wait_ns = counted
        line = {"at_s": round(at_s, 4), "threads": threads, "states": states, "wait_ns": wait_ns}
        self._append(line)

    def _usages(self) -> dict[str, list[Any]]:
        """Return what each thread has used, by its number."""
        threads = {}
        with contextlib.suppress(OSError):
            for task in self._tasks.iterdir():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    threads[task.name] = _usage(task)
        return threads

    def finish(self, at_s: float, end: int | str, cpu_s: float | None = None) -> None:
        """Append how the process ended, or was left, and what it and its children have used."""
        used = {} if cpu_s is None else {"cpu_ns": round(cpu_s * 1e9)}
        if self._path.exists():
            self._append({"at_s": round(at_s, 4), "end": end, **used})

    def _append(self, line: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a full disk: what was written stays
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, json.dumps(line, separators=(",", ":")).encode() + b"\n")
            finally:
                os.close(descriptor)


def _usage(task: Path) -> list[Any]:
    """Return a thread's name, CPU in ns, page faults, and switches by itself and by others."""
    cpu_ns = int((task / "schedstat").read_text().split()[0])
    fields = (task / "stat").read_text().rpartition(")")[2].split()
    switches = [
        int(line.split()[1])
        for line in (task / "status").read_text().splitlines()
        if "ctxt_switches" in line
    ]
    return [(task / "comm").read_text().strip(), cpu_ns, int(fields[7]), *switches]


def machine() -> dict[str, object]:
    """Describe the machine as `moored run --json` does: what explains a number, no name."""
    system = os.uname()
    processor = "unknown"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith("model name")).split(": ")[1]
    return {
        "system": system.sysname,
        "release": system.release,
        "architecture": system.machine,
        "processor": processor,
        "cpus": len(os.sched_getaffinity(0)),
    }


def name_of(target: Sequence[str]) -> str:
    """Return a short name for what is run, for files."""
    words = [word for word in target if not word.startswith("-")]
    name = Path(words[0]).stem if words else "program"
    return name or Path(sys.executable).name
