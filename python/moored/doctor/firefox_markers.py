"""Firefox markers: what happened when, as intervals under the profiler's own names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .buckets import Bucket
from .findings import Finding
from .firefox_tables import Strings

MOST = 20_000
"""In a document; samples are put together until there are no more."""

INTERVAL = 1
"""A phase: the marker has a start and an end."""

GIL, CPU = 2, 1
"""Categories, as their places in the list of the document."""

ON_CPU, WAITING, STATES, FOUND = (
    "On CPU",
    "Waiting for GIL",
    "Temporary Thread States",
    "Finding",
)


@dataclass
class Markers:
    """The markers of one thread."""

    strings: Strings
    rows: list[tuple[int, float, float, int, dict[str, Any]]] = field(default_factory=list)

    def add(self, name: str, start_s: float, end_s: float, category: int, **data: Any) -> None:
        """Add an interval, with what its table shows."""
        kind = name.replace(" ", "")
        row = self.strings.number(name), 1e3 * start_s, 1e3 * end_s, category
        self.rows.append((*row, {"type": kind, **data}))

    def as_json(self) -> dict[str, Any]:
        """Return the table of the thread."""
        return {
            "name": [row[0] for row in self.rows],
            "startTime": [row[1] for row in self.rows],
            "endTime": [row[2] for row in self.rows],
            "phase": [INTERVAL] * len(self.rows),
            "category": [row[3] for row in self.rows],
            "data": [row[4] for row in self.rows],
            "length": len(self.rows),
        }


def of_process(markers: Markers, buckets: Sequence[Bucket]) -> None:
    """Add what is known of all threads together."""
    for one in buckets:
        if one.gil_wait_ns:
            wait = one.gil_wait_ns / 1e6
            markers.add(WAITING, one.start_s, one.end_s, GIL, wait=wait)
        if one.temporary_states:
            states = one.temporary_states
            markers.add(STATES, one.start_s, one.end_s, GIL, states=states)


def of_findings(markers: Markers, findings: Sequence[Finding], end_s: float) -> None:
    """Add the findings, over the whole time."""
    for one in findings:
        markers.add(FOUND, 0.0, end_s, GIL, title=one.title, remedy=one.remedy, cost=one.cost)


def of_thread(markers: Markers, buckets: Sequence[Bucket], tid: int) -> None:
    """Add when a thread used the CPU."""
    for one in buckets:
        percent = one.cpu_percent.get(tid, 0.0)
        if percent > 0:
            markers.add(ON_CPU, one.start_s, one.end_s, CPU, percent=round(percent, 1))


def schema() -> list[dict[str, Any]]:
    """Return how the profiler shows the markers."""
    percent = {"key": "percent", "label": "of a CPU", "format": "string"}
    wait = {"key": "wait", "label": "Waited, all threads", "format": "duration"}
    states = {"key": "states", "label": "Made and thrown away", "format": "integer"}
    return [
        _shown(ON_CPU, "{marker.data.percent} % of a CPU", [percent]),
        _shown(WAITING, "{marker.data.wait} of all threads", [wait]),
        _shown(STATES, "{marker.data.states}", [states]),
        _shown(
            FOUND,
            "{marker.data.title}",
            [
                {"key": "title", "label": "Finding", "format": "string", "searchable": True},
                {"key": "cost", "label": "Cost", "format": "string"},
                {"key": "remedy", "label": "Remedy", "format": "string", "searchable": True},
            ],
        ),
    ]


def _shown(name: str, label: str, fields: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name.replace(" ", ""),
        "display": ["marker-chart", "marker-table", "timeline-overview"],
        "tooltipLabel": name,
        "tableLabel": label,
        "chartLabel": label,
        "fields": list(fields),
    }
