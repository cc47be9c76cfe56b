"""Findings: what the measured rows say, in one to three sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence

from moored.lab.phases import Row

_NO_REFERENCE = "No poll mode was measured, so there is nothing to compare the process CPU with."


def findings(rows: Sequence[Row], reference: str | None) -> list[str]:
    """Answer the report's question from these rows alone."""
    by_mode = {str(row["mode"]): row for row in rows}
    poll = by_mode.get(reference or "")
    sentences = [
        _changes(by_mode, reference) if poll and poll["rounds"] else _NO_REFERENCE,
        _price(by_mode, poll),
        _left_behind(rows),
    ]
    return [sentence for sentence in sentences if sentence]


def _changes(by_mode: dict[str, Row], reference: str | None) -> str:
    asked = [mode for mode in ("temporary", "kept", "enter") if mode in by_mode]
    others = [mode for mode in by_mode if mode not in (reference, "null")]
    said = []
    for mode in asked or others[:3]:
        change = by_mode[mode]["change_points"]
        if change is not None:
            said.append(f"{mode} {'saves' if change < 0 else 'adds'} {abs(change):.1f} points")
    return f"Process CPU against {reference}: {', '.join(said)}." if said else ""


def _price(by_mode: dict[str, Row], poll: Row | None) -> str:
    """Compare the two ways to attach with each other, and what the wait of a poll costs."""
    temporary, kept = by_mode.get("temporary"), by_mode.get("kept")
    said = []
    if temporary and kept and temporary["process_cpu_percent"] and kept["process_cpu_percent"]:
        ratio = kept["process_cpu_percent"] / temporary["process_cpu_percent"]
        said.append(f"kept uses {ratio:.2f} times the process CPU of temporary")
    if kept and poll and poll["latency_p50_us"] and kept["latency_p50_us"]:
        whose = "its median latency" if said else "the median latency of kept"
        ours, theirs = _time(kept["latency_p50_us"]), _time(poll["latency_p50_us"])
        said.append(f"{whose} is {ours}, that of {poll['mode']} {theirs}")
    text = "; ".join(said)
    return text[:1].upper() + text[1:] + "." if text else ""


def _left_behind(rows: Sequence[Row]) -> str:
    said = []
    for row in rows:
        dropped = row["lost"] + row["refused"]
        if dropped:
            share = 100 * dropped / (row["delivered"] + dropped)
            said.append(f"{row['mode']} {share:.2g} %")
    return f"Did not keep up, and left events undelivered: {', '.join(said)}." if said else ""


def _time(us: float) -> str:
    return f"{us / 1000:.1f} ms" if us >= 1000 else f"{us:.0f} us"
