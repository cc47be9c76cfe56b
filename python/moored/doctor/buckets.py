"""Buckets: samples put together, so that a long recording makes no more points than a short one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .recording import Recording, Sample


@dataclass
class Bucket:
    """Samples of one interval as one; `cpu_percent` are means over it."""

    start_s: float
    end_s: float
    cpu_percent: dict[int, float] = field(default_factory=dict)
    temporary_states: int = 0
    gil_wait_ns: int = 0


def of(recording: Recording, most: int) -> list[Bucket]:
    """Return at most so many buckets of equal numbers of samples."""
    samples = sorted(recording.samples, key=lambda sample: sample.at_s)
    size = -(-len(samples) // max(1, most)) or 1
    return list(_put_together(samples, size))


def _put_together(samples: Sequence[Sample], size: int) -> Iterator[Bucket]:
    start = 0.0
    for at in range(0, len(samples), size):
        part = samples[at : at + size]
        bucket = Bucket(start, max(start, part[-1].at_s))
        before, length = start, bucket.end_s - start
        for sample in part:
            weight = (sample.at_s - before) / length if length > 0 else 1 / len(part)
            before = sample.at_s
            for tid, percent in sample.cpu_percent.items():
                bucket.cpu_percent[tid] = bucket.cpu_percent.get(tid, 0.0) + percent * weight
            bucket.temporary_states += sample.temporary_states
            bucket.gil_wait_ns += sample.gil_wait_ns
        start = bucket.end_s
        yield bucket
