"""Verdict: what moored promises about channels, judged by the rows of one interpreter."""

from __future__ import annotations

from collections.abc import Sequence

from moored_lab.bench.delivery import OPEN, SATURATION, Row
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
    calm = _by_key(rows, OPEN, 5_000)
    for loop in ("asyncio",):
        ours = full.get(f"channel_{loop}")
        for way, limit in (("kept", 15.0), ("ensure", 50.0)):
            theirs = full.get(f"{loop}_{way}")
            if ours and theirs:
                name = f"saturation, {loop}: Channel against call_soon_threadsafe ({way})"
                ratio = ours["events_per_s"] / theirs["events_per_s"]
                found.append(Goal(name, ratio, limit, at_least=True))
        ours = calm.get(f"channel_{loop}")
        for way, limit in (("ensure", 0.65), ("kept", 0.80)):
            theirs = calm.get(f"{loop}_{way}")
            if ours and theirs:
                name = f"5,000 events/s, {loop}: CPU of Channel to call_soon_threadsafe ({way})"
                found.append(Goal(name, ours["cpu_percent"] / theirs["cpu_percent"], limit))
    return found


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
