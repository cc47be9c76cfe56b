"""Delivery: how native events reach Python, moored's ways and their peers, as rows."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moored
from moored_lab.bench.interpreter import Interpreter
from moored_lab.bench.process import HERE, turned
from moored_lab.bench.rounds import spread
from moored_lab.bench.workshop import CannotBuild, Workshop
from moored_lab.report.progress import bar

Row = dict[str, Any]

ENSURE, KEPT = "ensure", "kept"
WAYS = {
    ENSURE: "PyGILState_Ensure for each event",
    KEPT: "moored attach (kept) for each event",
    "asyncio_ensure": "call_soon_threadsafe, asyncio, from Ensure",
    "asyncio_kept": "call_soon_threadsafe, asyncio, from a kept state",
    "uvloop_ensure": "call_soon_threadsafe, uvloop, from Ensure",
    "uvloop_kept": "call_soon_threadsafe, uvloop, from a kept state",
    "channel_asyncio": "moored.Channel, asyncio, on_batch",
    "channel_event_loop": "moored.Channel, moored.EventLoop, on_batch",
    "channel_async_for": "moored.Channel, asyncio, async for",
    "channel_uvloop": "moored.Channel, uvloop, on_batch",
    "channel_wake": "moored.Channel, a thread that waits",
    "channel_enter": "moored.Channel, enter",
    "channel_adaptive": "moored.Channel, adaptive",
    "channel_poll": "moored.Channel, polled each ms",
    "simple_queue": "queue.SimpleQueue, from a kept state",
    "janus": "janus, asyncio, from a kept state",
    "culsans": "culsans, asyncio, from a kept state",
    "zeromq": "pyzmq inproc, from a kept state",
}
BASE = "base"
"""What is sent wakes nothing, and the handler runs beside it: what all ways at a rate stand on."""
TITLES = {BASE: "nothing is woken, the handler beside it", **WAYS}
PEERS = {
    "uvloop": ("uvloop_ensure", "uvloop_kept", "channel_uvloop"),
    "janus": ("janus",),
    "culsans": ("culsans",),
    "pyzmq": ("zeromq",),
}
"""What pip installs, and the ways that need it."""

SATURATION, OPEN = "saturation", "open loop"
PAYLOADS = {False: "int", True: "64 bytes"}


@dataclass(frozen=True)
class Cell:
    """One thing that is measured in all ways."""

    senders: int
    wide: bool
    rate: float = 0.0
    handler_us: float = 0.0

    def named(self) -> Row:
        """Say what it is."""
        told: Row = {
            "load": OPEN if self.rate else SATURATION,
            "senders": self.senders,
            "payload": PAYLOADS[self.wide],
        }
        if self.rate:
            told |= {"rate_per_s": round(self.rate), "handler_us": self.handler_us}
        return told


CELLS = (
    *(Cell(senders, wide=False) for senders in (1, 2, 8)),
    Cell(1, wide=True),
    Cell(1, wide=False, rate=5_000, handler_us=20),
    Cell(1, wide=False, rate=20_000, handler_us=8),
)


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 0.6
    ways: tuple[str, ...] = tuple(WAYS)
    cells: tuple[Cell, ...] = CELLS


class CannotMeasure(Exception):
    """A measured process failed; the message is the reason, for its rows."""


def run(interpreter: Interpreter, cache: Path, plan: Plan) -> list[Row]:
    """Build what is not built yet, and measure on one interpreter, way after way in each round."""
    shop = Workshop(interpreter, cache)
    with shop.opened():
        shop.build_driver()
        print(f"building for Python {interpreter.version}", file=sys.stderr)
        shop.build("delivery", _build)
        missing = _install(shop, plan.ways)
        rows = costs(shop, plan)
        rows += _in_turns(shop, plan, missing)
    named = {"moored": interpreter.moored, "python": interpreter.version}
    return [{**named, **row} for row in rows]


def costs(shop: Workshop, plan: Plan) -> list[Row]:
    """Measure a send, and an event of a batch, against the same by hand."""
    told = ask(shop, {"way": "costs", "rounds": max(5, plan.rounds)})
    rows: list[Row] = []
    for key, rounds in told["send"].items():
        senders, wide = key.split()
        named = {"load": "send", "senders": int(senders), "payload": PAYLOADS[wide == "1"]}
        by_hand = [plain for plain, _, _ in rounds]
        ours = [channel for _, channel, _ in rounds]
        lost = sum(lost for _, _, lost in rounds)
        rows.append({**named, "way": "a mutex and a vector", **_ns(by_hand)})
        rows.append({**named, "way": "channel.send", **_ns(ours), "lost": lost})
    named = {"load": "batch of 64", "senders": 1, "payload": "int"}
    rows.append({**named, "way": "by hand", **_ns([ideal for ideal, _ in told["batch"]])})
    rows.append({**named, "way": "channel", **_ns([ours for _, ours in told["batch"]])})
    return rows


def _ns(values: list[float]) -> Row:
    low, high = spread(values)
    return {
        "ns_min": round(min(values), 1),
        "ns_median": round(statistics.median(values), 1),
        "ns_p10": round(low, 1),
        "ns_p90": round(high, 1),
    }


def _in_turns(shop: Workshop, plan: Plan, missing: dict[str, str]) -> list[Row]:
    ways = [way for way in plan.ways if way not in missing]
    failed: dict[str, str] = dict(missing)
    heard: dict[tuple[Cell, str], list[Row]] = {}
    steps = plan.rounds * sum(len(_measured_in(cell, ways)) for cell in plan.cells)
    with bar() as progress:
        done = 0
        for turn in range(plan.rounds):
            for cell in plan.cells:
                for way in turned(_measured_in(cell, ways), turn):
                    progress(done / max(steps, 1), f"round {turn + 1}: {TITLES[way]}")
                    done += 1
                    if way in failed:
                        continue
                    order = vars(cell) | {"way": way, "seconds": plan.seconds}
                    try:
                        heard.setdefault((cell, way), []).append(ask(shop, order))
                    except CannotMeasure as error:
                        failed[way] = str(error)
    rows: list[Row] = []
    for cell in plan.cells:
        its = {way: rounds for (of, way), rounds in heard.items() if of == cell}
        for way in _measured_in(cell, plan.ways):
            named = {**cell.named(), "way": TITLES[way], "key": way}
            if way in failed:
                rows.append({**named, "note": f"not measured: {failed[way]}"})
                continue
            row = _summed(its[way])
            if ENSURE in its and ENSURE not in failed:
                row |= _against_ensure(its[way], its[ENSURE])
            if BASE in its and BASE not in failed and way != BASE:
                row |= _above_base(its[way], its[BASE])
            rows.append({**named, **row, "note": ""})
    return rows


def _measured_in(cell: Cell, ways: Sequence[str]) -> Sequence[str]:
    """Give the ways, and what they stand on if they are to be compared by what they take."""
    return [BASE, *ways] if cell.rate else ways


def _summed(rounds: list[Row]) -> Row:
    """Give the medians of the rounds, and their spread."""
    row: Row = {}
    for key in ("events_per_s", "cpu_percent", "cpu_ns", "p50_us", "p99_us"):
        values = [one[key] for one in rounds if one[key] is not None]
        if not values:
            continue
        low, high = spread(values)
        row |= {
            key: round(statistics.median(values), 2),
            f"{key}_p10": round(low, 2),
            f"{key}_p90": round(high, 2),
        }
    return row


def _against_ensure(rounds: list[Row], ensure: list[Row]) -> Row:
    """Give the ratios to the same rounds of Ensure."""
    pairs = list(zip(rounds, ensure, strict=True))
    rates = [mine["events_per_s"] / its["events_per_s"] for mine, its in pairs]
    cpus = [mine["cpu_percent"] / its["cpu_percent"] for mine, its in pairs]
    return {
        "times_ensure": round(statistics.median(rates), 3),
        "cpu_of_ensure": round(statistics.median(cpus), 3),
    }


def _above_base(rounds: list[Row], base: list[Row]) -> Row:
    """Give the CPU of an event above that of the same rounds of the base."""
    pairs = zip(rounds, base, strict=True)
    above = [(mine["cpu_ns"] - its["cpu_ns"]) / 1000 for mine, its in pairs]
    low, high = spread(above)
    return {
        "above_base_us": round(statistics.median(above), 2),
        "above_base_us_p10": round(low, 2),
        "above_base_us_p90": round(high, 2),
    }


def ask(shop: Workshop, order: dict[str, Any]) -> Row:
    """Measure once, in a process of its own."""
    order = order | {"modules": str(shop.modules / "delivery"), "packages": str(shop.packages)}
    command = [str(shop.interpreter.executable), str(HERE / "delivery_caller.py")]
    try:
        done = subprocess.run(
            [*command, json.dumps(order)],
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotMeasure("it took over 120 s") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        words = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise CannotMeasure(words[0][:200])
    told: Row = json.loads(lines[-1])
    return told


def _build(shop: Workshop, source: Path, target: Path) -> None:
    flags = ("-std=c++20", "-fvisibility=hidden", "-DNDEBUG", "-pthread")
    shop.compile(
        target / "delivery_load.so",
        source / "delivery_load.cpp",
        *flags,
        f"-I{moored.get_include()}",
    )


def _install(shop: Workshop, ways: Sequence[str]) -> dict[str, str]:
    """Install the peers that are asked for; give the ways that cannot be measured, with reasons."""
    missing: dict[str, str] = {}
    for package, needing in PEERS.items():
        wanted = [way for way in needing if way in ways]
        if not wanted or shop.is_built(f"pip-{package}"):
            continue
        try:
            shop.pip_install("--only-binary=:all:", package)
            shop.note_built(f"pip-{package}")
        except CannotBuild as error:
            missing |= dict.fromkeys(wanted, f"{package}: {error}")
    return missing
