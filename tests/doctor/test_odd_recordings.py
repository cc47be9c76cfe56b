"""Whatever numbers and names a recording holds, every report can be made of it."""

from __future__ import annotations

import json
import random
from dataclasses import fields

import pytest
from doctor_recordings import healthy

from moored.doctor import (
    answer,
    compare,
    export_collapsed,
    export_firefox,
    export_json,
    export_speedscope,
    page,
)
from moored.doctor.answer import Look
from moored.doctor.recording import Counts, Frame, Recording, Sample, Site, Thread

NUMBERS = (0, 0, 1, 2, 59, 1000, 10**6, 10**9, 2**62)
TEXTS = ("", "a", "\x00", "\udcff", "</script>", ";", "é" * 40, "x" * 400, "{{data}}", "%s", "<<(>")


def odd(seed: int) -> Recording:
    """A recording of random numbers and names, without any sense."""
    dice = random.Random(seed)

    def counts() -> Counts:
        return Counts(*(dice.choice(NUMBERS) for _ in fields(Counts)))

    def frame() -> Frame:
        return Frame(dice.choice(TEXTS), dice.choice(TEXTS), dice.choice(NUMBERS), "")

    keys = range(dice.randrange(6))
    sites = [
        Site(key, dice.choice(TEXTS), tuple(frame() for _ in range(dice.randrange(4))), counts())
        for key in keys
    ]
    threads = [
        Thread(
            dice.choice(NUMBERS),
            dice.choice(TEXTS),
            dice.choice(("main", "python", "foreign")),
            counts(),
            cpu_ns=dice.choice(NUMBERS),
            sites=tuple((dice.randrange(8), counts()) for _ in range(dice.randrange(4))),
            exited=dice.random() < 0.5,
        )
        for _ in range(dice.randrange(5))
    ]
    samples = [
        Sample(
            dice.random() * 100,
            {dice.choice(NUMBERS): dice.random() * 900 for _ in range(3)},
            dice.choice(NUMBERS),
            dice.choice(NUMBERS),
        )
        for _ in range(dice.randrange(5))
    ]
    return healthy(
        path=dice.choice(TEXTS),
        command=dice.choice(TEXTS),
        machine={dice.choice(TEXTS): dice.choice(NUMBERS)},
        seconds=dice.choice((0.0, 0.001, 12.4, 1e7)),
        cpu_ns=dice.choice(NUMBERS),
        sites=tuple(sites),
        threads=tuple(threads),
        samples=tuple(samples),
        kept=dice.random() < 0.5,
        urgent=dice.random() < 0.5,
        chunk_cost_ns=dice.choice((0.0, 9_000.0)),
        **{
            name: dice.choice(NUMBERS)
            for name in ("late_attaches", "locals_lost", "threads_of_one_call", "records_lost")
        },
        threadsafe_calls=dice.choice(NUMBERS),
    )


@pytest.mark.parametrize("seed", range(150))
def test_every_report_can_be_made(seed: int) -> None:
    recording = odd(seed)
    for look in (Look(), Look(33, in_colour=True)):
        assert answer.answer(recording, look)
    for export in (export_json.export, export_speedscope.export, export_firefox.export):
        json.loads(export(recording))
    export_collapsed.export(recording)
    assert page.export(recording).count("<script") == 6
    assert compare.show(compare.compare([recording], [odd(seed + 1)]))
