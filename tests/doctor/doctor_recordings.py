"""Recordings made by hand: a healthy one, and what the tests change in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moored.doctor.recording import Counts, Frame, Recording, Sample, Site, Thread

GSTREAMER = (
    Frame("/usr/lib/python3/_ctypes.cpython-311-x86_64-linux-gnu.so", "", 0x5C10, "c0ffee01"),
    Frame("/usr/lib/x86_64-linux-gnu/libffi.so.8", "", 0x7E22, "c0ffee02"),
    Frame("/usr/lib/x86_64-linux-gnu/libgstbase-1.0.so.0", "gst_base_src_loop", 0x3A, "c0ffee03"),
    Frame("/usr/lib/x86_64-linux-gnu/libc.so.6", "start_thread", 0x90, "c0ffee04"),
)
FEED = (
    Frame("/opt/feed.cpython-311-x86_64-linux-gnu.so", "pybind11::gil_scoped_acquire()", 8),
    Frame("/opt/feed.cpython-311-x86_64-linux-gnu.so", "feed::Reader::run()", 0x50),
)
MACHINE = {"system": "Linux", "architecture": "x86_64", "processor": "a <b>CPU</b>", "cpus": 2}

CHURN = Counts(
    calls=43_120, temporary_states=43_120, attach_ns=620_000_000, wait_ns=10_000_000, hold_ns=10**9
)


def site(key: int = 1, counts: Counts | None = None, **changes: Any) -> Site:
    """A site of ctypes."""
    return replace(Site(key, "ctypes", GSTREAMER, counts or Counts()), **changes)


def thread(tid: int, name: str, counts: Counts | None = None, **changes: Any) -> Thread:
    """A foreign thread, which used the first site only."""
    counts = counts or Counts()
    made = Thread(tid, name, "foreign", counts, sites=((1, counts),) if counts.calls else ())
    return replace(made, **changes)


def healthy(**changes: Any) -> Recording:
    """A process whose native threads keep their states and hardly wait."""
    counts = Counts(calls=50_000, attach_ns=4_000_000, wait_ns=500_000, hold_ns=400_000_000)
    made = Recording(
        path="moored-1.rec",
        command="app.py --port 80",
        pid=4242,
        parent_pid=1,
        python="3.11.7",
        moored="0.1.0",
        machine=MACHINE,
        started_unix_s=1_790_000_000.0,
        seconds=12.4,
        end="exited",
        cpu_ns=12_500_000_000,
        per_call_cost_ns=36.0,
        kept=False,
        urgent=False,
        sites=(site(1, counts),),
        threads=(
            thread(4242, "python", kind="main", cpu_ns=11_000_000_000),
            thread(4243, "gst-src", counts, cpu_ns=1_500_000_000),
        ),
        samples=tuple(
            Sample(at / 10, {4242: 90.0, 4243: 12.0, 0: 1.0}, 350, 4_000_000)
            for at in range(1, 125)
        ),
    )
    return replace(made, **changes)


def with_counts(counts: Counts, **changes: Any) -> Recording:
    """The healthy process, with other counts at its one site and in its foreign thread."""
    of_thread = thread(4243, "gst-src", counts, cpu_ns=1_500_000_000)
    main = healthy().threads[0]
    return healthy(**{"sites": (site(1, counts),), "threads": (main, of_thread), **changes})


def churning(**changes: Any) -> Recording:
    """A process that pays for temporary states."""
    return with_counts(CHURN, **changes)


def large(sites: int = 5_000, threads: int = 2_000) -> Recording:
    """A process of very many sites and threads."""
    made = tuple(
        site(
            key,
            Counts(
                calls=1 + key % 97,
                temporary_states=key % 97,
                attach_ns=1_000_000 + 1000 * key,
                wait_ns=1000 * (key % 5),
            ),
            frames=tuple(
                Frame(f"/usr/lib/libmany{(key >> depth) % 40}.so.1", f"function_{key >> depth}")
                for depth in range(12)
            ),
        )
        for key in range(1, sites + 1)
    )
    users = tuple(
        thread(
            5_000 + at,
            f"pool-{at}",
            Counts(calls=40, temporary_states=40, attach_ns=400_000),
            cpu_ns=1_000_000 * at,
            sites=tuple((1 + (at * 7 + by) % sites, Counts(calls=10)) for by in range(4)),
        )
        for at in range(threads)
    )
    samples = tuple(
        Sample(at / 10, {5_000 + (at * 31 + by) % threads: 2.0 for by in range(50)}, at, at * 1000)
        for at in range(1, 601)
    )
    return healthy(sites=made, threads=users, samples=samples, seconds=60.0)
