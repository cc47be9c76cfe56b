"""Verdict: what moored promises about channels, judged by the rows of one interpreter."""

from __future__ import annotations

from collections.abc import Sequence

from moored_lab.bench.delivery import KEPT, OPEN, SATURATION, Row
from moored_lab.bench.goals import Goal


def judge(rows: Sequence[Row]) -> list[Goal]:
    """Judge what was measured; what was not is not judged."""
    found: list[Goal] = []
    send = {
        (row["senders"], row["payload"]): row for row in rows if row.get("way") == "channel.send"
    }
    one = send.get((1, "int"))
    if one is not None:
        found.append(Goal("send(), 1 sender, CPU", one["ns_median"], 50, unit="ns"))
        many = send[8, "int"]
        found.append(
            Goal("send(), 8 senders against 1, CPU", many["ns_median"] / one["ns_median"], 4)
        )
        found.append(Goal("send(), 8 senders: lost", many["lost"], 0, unit="events"))
    batch = {row["way"]: row["ns_median"] for row in rows if row["load"] == "batch of 64"}
    if "channel" in batch:
        found.append(Goal("batch of 64, an event", batch["channel"] / 1000, 0.25, unit="us"))
        found.append(Goal("batch of 64 against by hand", batch["channel"] / batch["by hand"], 2))
    full = _by_key(rows, SATURATION, 0)
    ours = full.get("channel_asyncio")
    for way, limit in (("kept", 15.0), ("ensure", 50.0)):
        theirs = full.get(f"asyncio_{way}")
        if ours and theirs:
            name = f"saturation, asyncio: Channel against call_soon_threadsafe ({way})"
            ratio = ours["events_per_s"] / theirs["events_per_s"]
            found.append(Goal(name, ratio, limit, at_least=True))
    return found + _by_cpu(rows)


WAKES = (
    ("channel_asyncio", "asyncio: Channel", "asyncio_ensure", 0.45),
    ("channel_asyncio", "asyncio: Channel", "asyncio_kept", 0.60),
    ("channel_event_loop", "moored.EventLoop: Channel", "asyncio_ensure", 0.30),
    ("channel_event_loop", "moored.EventLoop: Channel", "asyncio_kept", 0.40),
)
"""At 5,000 events/s: a way, what it is, what it is judged against, and how dear it may be."""


def _by_cpu(rows: Sequence[Row]) -> list[Goal]:
    """Judge the CPU that ways take above the base, which the sender and the handler take."""
    found: list[Goal] = []
    calm = _by_key(rows, OPEN, 5_000)
    for way, what, other, limit in WAKES:
        ratio = _of_other(calm, way, other)
        if ratio is not None:
            state = other.partition("_")[2]
            name = f"5,000 events/s, {what} to call_soon_threadsafe ({state}), CPU above base"
            found.append(Goal(name, ratio, limit))
    # Whole, for both take so little above the base that its ratio would be noise.
    busy = _by_key(rows, OPEN, 20_000)
    ours, theirs = busy.get("channel_enter"), busy.get(KEPT)
    if ours and theirs:
        name = "20,000 events/s, enter to an attach (kept) for each event, CPU"
        found.append(Goal(name, ours["cpu_ns"] / theirs["cpu_ns"], 1.0))
    return found


def _of_other(rows: dict[str, Row], way: str, other: str) -> float | None:
    """Give the ratio, unless one was not measured, or the other took nothing that can be seen."""
    ours = rows.get(way, {}).get("above_base_us")
    theirs = rows.get(other, {}).get("above_base_us")
    return None if ours is None or theirs is None or theirs <= 0 else ours / theirs


def _by_key(rows: Sequence[Row], load: str, rate: int) -> dict[str, Row]:
    """Pick the measured rows of one sender of numbers."""
    return {
        row["key"]: row
        for row in rows
        if row["load"] == load
        and row["senders"] == 1
        and row["payload"] == "int"
        and row.get("rate_per_s", 0) == rate
        and "events_per_s" in row
    }
