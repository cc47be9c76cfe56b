"""Capture: reads the file in which a process was recorded (docs/design/capture.md)."""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import moored
from moored.cli.errors import CommandError, ExitCode

from . import binding, names
from .recording import Counts, End, Frame, Kind, Recording, Sample, Site, Thread
from .symbols import Symbols

MAGIC, VERSION = b"MOOREDOC", 2
FRAMES, SLOTS = 24, 32
NOTHING_SEEN: list[Any] = ["", 0, 0, 0, 0]
"""As a sample has a thread: name, CPU in ns, page faults, switches by itself and by others."""

_u32, _u64, _Bytes = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_char


class _Header(ctypes.LittleEndianStructure):
    _fields_ = (
        ("magic", _Bytes * 8),
        ("version", _u32),
        ("header_size", _u32),
        ("module_size", _u32),
        ("site_size", _u32),
        ("thread_size", _u32),
        ("slot_size", _u32),
        ("modules_at", _u64),
        ("sites_at", _u64),
        ("threads_at", _u64),
        ("size", _u64),
        ("pid", _u32),
        ("parent", _u32),
        ("started_unix_ns", _u64),
        ("first_tick", _u64),
        ("first_ns", _u64),
        ("last_tick", _u64),
        ("last_ns", _u64),
        ("cost_of_1000_calls_ns", _u64),
        ("keeps", _u32),
        ("is_urgent", _u32),
        ("has_ended", _u32),
        ("modules", _u32),
        ("sites", _u32),
        ("threads", _u32),
        ("late_attaches", _u64),
        ("sites_lost", _u64),
        ("waits_are_seen", _u32),
        ("holders_are_seen", _u32),
        ("chunks_are_seen", _u32),
        ("unused", _u32),
        ("chunk_cost_ns", _u64),
        ("python", _Bytes * 32),
        ("command", _Bytes * 1024),
    )


class _Module(ctypes.LittleEndianStructure):
    _fields_ = (
        ("base", _u64),
        ("build_id_size", ctypes.c_uint8),
        ("build_id", ctypes.c_uint8 * 23),
        ("path", _Bytes * 288),
    )


class _Site(ctypes.LittleEndianStructure):
    _fields_ = (
        ("frames", _u32),
        ("is_whole", _u32),
        ("module", _u32 * FRAMES),
        ("offset", _u64 * FRAMES),
    )


class _Counts(ctypes.LittleEndianStructure):
    _fields_ = tuple(
        (name, _u64)
        for name in (
            *("calls", "states", "attach", "wait", "wait_for_main", "longest_wait"),
            *("hold", "longest_hold", "detach", "chunks", "states_with_locals"),
        )
    )


class _Slot(ctypes.LittleEndianStructure):
    _fields_ = (("key", _u64), ("site", _u32), ("unused", _u32), ("counted", _Counts))


class _Thread(ctypes.LittleEndianStructure):
    _fields_ = (
        ("tid", _u32),
        ("threads", _u32),
        ("is_alive", _u32),
        ("is_foreign", _u32),
        ("name", _Bytes * 16),
        ("counted", _Counts),
        ("waits", _u64),
        ("calls_without_site", _u64),
        ("wakes", _u64),
        ("slots", _Slot * SLOTS),
    )


def read(place: str | Path, symbols: Symbols | None = None) -> Recording:
    """Read a capture, whole or cut short; CommandError with one clear line for anything else.

    With `symbols`, names that an earlier reading has found are not looked up again.
    """
    path = Path(place)
    symbols = symbols if symbols is not None else Symbols()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", ExitCode.USAGE) from error
    header = _header(path, raw)
    modules = [
        _Module.from_buffer_copy(raw, header.modules_at + index * header.module_size)
        for index in range(_fitting(raw, header.modules, header.modules_at, header.module_size))
    ]
    sites = [
        _Site.from_buffer_copy(raw, header.sites_at + index * header.site_size)
        for index in range(_fitting(raw, header.sites, header.sites_at, header.site_size))
    ]
    rows = [
        _Thread.from_buffer_copy(raw, header.threads_at + index * header.thread_size)
        for index in range(_fitting(raw, header.threads, header.threads_at, header.thread_size))
    ]
    clock = _Clock(header)
    threads = [_thread(row, header.pid, clock) for row in rows]
    sampled = list(_lines(raw[header.size :]))
    found, samples = _with_samples(threads, sampled)
    by_site: dict[int, Counts] = {}
    for thread in threads:
        for key, counts in thread.sites:
            by_site[key] = by_site.get(key, Counts()) + counts
    last: dict[str, Any] = next((line for line in reversed(sampled) if "end" in line), {})
    return Recording(
        path=str(path),
        command=_text(header.command) or "?",
        pid=header.pid,
        parent_pid=header.parent,
        python=_text(header.python) or "none",
        moored=moored.__version__,
        machine=next((line["machine"] for line in sampled if "machine" in line), {}),
        started_unix_s=header.started_unix_ns / 1e9,
        seconds=float(last.get("at_s", 0) or (header.last_ns - header.first_ns) / 1e9),
        end=_end(header, raw, last),
        cpu_ns=int(last.get("cpu_ns", 0)) or sum(thread.cpu_ns for thread in found),
        per_call_cost_ns=header.cost_of_1000_calls_ns / 1000,
        kept=bool(header.keeps),
        urgent=bool(header.is_urgent),
        sites=names.told_apart(
            [
                _site(index, one, modules, by_site.get(index, Counts()), symbols)
                for index, one in enumerate(sites)
            ]
        ),
        threads=tuple(found),
        samples=tuple(samples),
        late_attaches=header.late_attaches,
        locals_lost=sum(thread.counts.states_with_locals for thread in threads),
        threads_of_one_call=sum(
            row.threads
            for row, thread in zip(rows, threads, strict=True)
            if thread.kind == "foreign" and thread.exited and thread.counts.calls <= row.threads
        ),
        threadsafe_calls=sum(row.wakes for row in rows),
        records_lost=header.sites_lost + sum(row.calls_without_site for row in rows),
        sees_waits=bool(header.waits_are_seen),
        sees_holders=bool(header.holders_are_seen),
        sees_chunks=bool(header.chunks_are_seen),
        chunk_cost_ns=header.chunk_cost_ns,
    )


def has_python(path: Path) -> bool:
    """Say whether a Python came up in the process. False for what is no capture, too."""
    try:
        with path.open("rb") as file:
            raw = file.read(ctypes.sizeof(_Header))
    except OSError:
        return False
    is_whole = len(raw) == ctypes.sizeof(_Header) and raw.startswith(MAGIC)
    return is_whole and bool(_Header.from_buffer_copy(raw).python)


def counted_so_far(path: Path) -> tuple[int, int] | None:
    """Return how many states were made and how many ns waited; None before the file is there."""
    try:
        with path.open("rb") as file:
            raw = file.read(ctypes.sizeof(_Header))
            if len(raw) < ctypes.sizeof(_Header) or not raw.startswith(MAGIC):
                return None
            header = _Header.from_buffer_copy(raw)
            if header.version != VERSION:
                return None
            clock = _Clock(header)
            states = wait = 0
            for index in range(header.threads):
                file.seek(header.threads_at + index * header.thread_size + _Thread.counted.offset)
                counts = _Counts.from_buffer_copy(file.read(ctypes.sizeof(_Counts)))
                states += counts.states
                wait += counts.wait
    except (OSError, ValueError):
        return None
    return states, clock.ns(wait)


class _Clock:
    """Turns the file's ticks into ns."""

    def __init__(self, header: _Header) -> None:
        ticks = header.last_tick - header.first_tick
        # A process that was killed at once has no second moment: then ticks are shown as they are.
        self._ns_a_tick = (header.last_ns - header.first_ns) / ticks if ticks > 0 else 1.0

    def ns(self, ticks: int) -> int:
        return round(ticks * self._ns_a_tick)


def _header(path: Path, raw: bytes) -> _Header:
    if not raw.startswith(MAGIC):
        raise CommandError(
            f"{path} is no capture of moored doctor; record one with: moored doctor -o FILE app.py",
            ExitCode.USAGE,
        )
    if len(raw) < ctypes.sizeof(_Header):
        raise CommandError(f"{path} is cut short before its first record", ExitCode.USAGE)
    header = _Header.from_buffer_copy(raw)
    if header.version != VERSION:
        raise CommandError(
            f"{path} has version {header.version} of the format, and this moored reads version "
            f"{VERSION}; use the moored that recorded it",
            ExitCode.USAGE,
        )
    return header


def _fitting(raw: bytes, wanted: int, at: int, size: int) -> int:
    """How many of so many rows are there: a file may be cut short."""
    return max(0, min(wanted, (len(raw) - at) // size))


def _end(header: _Header, raw: bytes, last: dict[str, Any]) -> End:
    if len(raw) < header.size:
        return "cut short"
    if header.has_ended:
        return "exited"
    how = last.get("end")
    if how in _ENDS_OF_ATTACHED:
        return _ENDS_OF_ATTACHED[how]
    if isinstance(how, int) and how >= 0:
        return "exited"
    if not last and _lives(header.pid):
        return "running"
    return "crashed" if how in _CRASHES else "killed"


_CRASHES = tuple(
    -number
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
)
_ENDS_OF_ATTACHED: dict[object, End] = {
    "detached": "detached",
    "replaced": "replaced by another program",
    "gone": "ended",
}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _counts(row: _Counts, clock: _Clock) -> Counts:
    return Counts(
        calls=row.calls,
        temporary_states=row.states,
        attach_ns=clock.ns(row.attach + row.detach),
        wait_ns=clock.ns(row.wait),
        wait_for_main_ns=clock.ns(row.wait_for_main),
        longest_wait_ns=clock.ns(row.longest_wait),
        hold_ns=clock.ns(row.hold),
        longest_hold_ns=clock.ns(row.longest_hold),
        chunks=row.chunks,
        states_with_locals=row.states_with_locals,
    )


def _thread(row: _Thread, pid: int, clock: _Clock) -> Thread:
    kind: Kind = "main" if row.tid == pid else "foreign" if row.is_foreign else "python"
    sites: dict[int, Counts] = {}
    for slot in row.slots:
        if slot.key:
            sites[slot.site] = sites.get(slot.site, Counts()) + _counts(slot.counted, clock)
    return Thread(
        tid=row.tid,
        name=_text(row.name) or "?",
        kind=kind,
        counts=_counts(row.counted, clock),
        sites=tuple(sites.items()),
        exited=not row.is_alive,
        loop_wakes=row.wakes,
    )


def _site(key: int, row: _Site, modules: list[_Module], counts: Counts, symbols: Symbols) -> Site:
    frames = []
    for index in range(min(row.frames, FRAMES)):
        module, offset = row.module[index], row.offset[index]
        if module >= len(modules):
            frames.append(Frame("?", "", offset))
            continue
        one = modules[module]
        build_id = bytes(one.build_id[: one.build_id_size]).hex()
        frames.append(symbols.frame(_text(one.path), offset, build_id))
    return Site(key, _binding(frames), tuple(frames), counts)


def _binding(frames: list[Frame]) -> str:
    """Recognise what the caller of the attach, or a library between, was made with."""
    through = [frame.module for frame in frames[:4] if names.is_between(frame.module)]
    for module in [*(frame.module for frame in frames[:1]), *through]:
        found = binding.recognise(module)
        if found not in (binding.PLAIN, "Python"):
            return found
    return binding.PLAIN


def _lines(raw: bytes) -> Iterator[dict[str, Any]]:
    """Give what the parent appended, line by line, but for a last line that is cut short."""
    for line in raw.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _with_samples(
    threads: list[Thread], lines: list[dict[str, Any]]
) -> tuple[list[Thread], list[Sample]]:
    """Add what the parent saw of each thread; threads that never met the GIL come along."""
    samples: list[Sample] = []
    seen: dict[int, list[Any]] = {}
    at_s, states, wait_ns = 0.0, 0, 0
    for line in lines:
        if "threads" not in line:
            continue
        now = {int(tid): values for tid, values in line["threads"].items()}
        took = max(float(line["at_s"]) - at_s, 1e-6)
        used = {
            tid: 100 * max(0, values[1] - seen.get(tid, NOTHING_SEEN)[1]) / (1e9 * took)
            for tid, values in now.items()
        }
        more = max(0, line["states"] - states), max(0, line["wait_ns"] - wait_ns)
        samples.append(Sample(float(line["at_s"]), used, *more))
        at_s, states, wait_ns = float(line["at_s"]), line["states"], line["wait_ns"]
        seen |= now
    known = {thread.tid for thread in threads}
    rows = [*threads, *(Thread(tid, "", "other", Counts()) for tid in seen if tid not in known)]
    found = []
    for thread in rows:
        name, cpu, faults, asked, forced = seen.get(thread.tid, [thread.name, *NOTHING_SEEN[1:]])
        found.append(
            replace(
                thread,
                name=name,
                cpu_ns=cpu,
                minor_faults=faults,
                voluntary_switches=asked,
                involuntary_switches=forced,
            )
        )
    return found, samples
