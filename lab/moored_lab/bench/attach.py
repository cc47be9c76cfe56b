"""Attach: what each way into Python costs, as rows and as goals."""

from __future__ import annotations

import sys
from typing import Any

from moored_lab.bench.goals import Goal
from moored_lab.bench.rounds import Samples, spread

RAW = "raw"

NAMES = {
    RAW: "PyEval_RestoreThread + call + PyEval_SaveThread (raw)",
    "raw_in_a_guard": "the same in an interpreter guard of its own (3.15)",
    "moored_kept": "moored attach, kept + call + end",
    "moored_kept_ordinary": "the same in an extension with the ordinary TLS model",
    "moored_temporary": "moored attach, temporary + call + end",
    "moored_shared": "moored attach, shared + call + end",
    "moored_borrowed": "moored attach, borrowed + call + end",
    "ensure": "PyGILState_Ensure + call + Release (temporary state)",
    "keep_thread_ensure": "the same on a thread with moored.keep_thread()",
    "ensure_nested": "PyGILState_Ensure + call + Release, nested",
    "moored_kept_alone": "moored attach, kept + end, no call",
    "raw_alone": "PyEval_RestoreThread + PyEval_SaveThread, no call",
    "moored_nested_alone": "moored attach + end, nested, no call",
    "gate_alone": "the gate alone: counted in and out",
    "gate_among_four": "the same, beside three threads that do nothing else",
}


def rows_of(measured: dict[str, Samples], refusals: dict[str, str]) -> list[dict[str, Any]]:
    """One row for each way; a way that is refused here has a note instead of figures."""
    raw = measured[RAW]
    rows: list[dict[str, Any]] = []
    for key, name in NAMES.items():
        if key in refusals:
            rows.append({"name": name, "key": key, "note": f"refused: {refusals[key]}"})
            continue
        low, high = spread(ratios(measured[key], raw))
        rows.append(
            {"name": name, "key": key}
            | measured[key].as_row()
            | {"ratio": round(measured[key].median / raw.median, 3)}
            | {"ratio_p10": round(low, 3), "ratio_p90": round(high, 3), "note": ""}
        )
    return rows


def ratios(samples: Samples, base: Samples) -> list[float]:
    """Give the ratio of each round: both sides of it saw the same moment of the machine."""
    return [ns / base_ns for ns, base_ns in zip(samples.ns, base.ns, strict=True)]


def goals(measured: dict[str, Samples]) -> list[Goal]:
    """Judge what moored promises about its price, by ratios of medians."""
    raw, kept = measured[RAW].median, measured["moored_kept"].median
    ordinary = measured["moored_kept_ordinary"].median
    by_ensure = measured["keep_thread_ensure"].median
    more = measured["moored_kept_alone"].median - measured["raw_alone"].median
    found = [
        Goal("moored attach + call + end against raw", kept / raw, 1.03),
        Goal("the same in an extension with the ordinary TLS model", ordinary / raw, 1.06),
        Goal(
            "attach + call + end against Ensure + call + Release on a kept thread",
            kept / by_ensure,
            1.0,
        ),
        Goal("attach + end, no call, more than raw", more, 2, unit="ns"),
        Goal("nested attach", measured["moored_nested_alone"].median, 4, unit="ns"),
    ]
    for key, where in (("gate_alone", "alone"), ("gate_among_four", "among four threads")):
        if key in measured:
            found.append(Goal(f"the gate {where}", measured[key].median, 1, unit="ns"))
    if sys.version_info >= (3, 11):
        dearer = measured["ensure"].median / kept
        found.append(
            Goal("Ensure + call + Release against moored attach", dearer, 50, at_least=True)
        )
    return found
