"""Findings: what the measured rows say, in one to three sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence

from moored_lab.wakeup.phases import Row

_NO_REFERENCE = "No poll mode was measured, so there is nothing to compare the process CPU with."


def findings(rows: Sequence[Row], reference: str | None) -> list[str]:
    """Answer the report's question from these rows alone."""
    by_mode = {str(row["mode"]): row for row in rows}
    poll = by_mode.get(reference or "")
    sentences = [
        _changes(by_mode, reference) if poll and poll["rounds"] else _NO_REFERENCE,
        _price(by_mode, poll),
        *(_urgent(by_mode, mode) for mode in ("kept", "enter")),
        _adaptive(by_mode),
        _one_inside(by_mode),
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


def _urgent(by_mode: dict[str, Row], mode: str) -> str:
    """Compare a mode whose attaches ask a busy main at once with the same mode as it is."""
    urgent, plain = by_mode.get(f"{mode}-urgent"), by_mode.get(mode)
    if urgent is None or plain is None:
        return ""
    ours, theirs = urgent["latency_p50_us"], plain["latency_p50_us"]
    if not (ours and theirs and plain["process_cpu_percent"]):
        return ""
    cpu = urgent["process_cpu_percent"] / plain["process_cpu_percent"]
    said = (
        f"{mode}-urgent has a median latency of {_time(ours)}, 1/{theirs / ours:.0f} of that of "
        f"{mode}, at {cpu:.2f} times its process CPU"
    )
    if urgent["own_work_per_s"] and plain["own_work_per_s"]:
        share = 100 * urgent["own_work_per_s"] / plain["own_work_per_s"]
        said += f"; main gets {share:.0f} % of its own work done"
    return f"{said}."


def _adaptive(by_mode: dict[str, Row]) -> str:
    """Compare the adaptive delivery with the better of its parts, in CPU and in median latency."""
    mine = by_mode.get("channel-adaptive")
    names = [f"channel-{part}" for part in ("wake", "enter", "interrupt")]
    parts = [by_mode[name] for name in names if name in by_mode]
    if mine is None or not parts:
        return ""
    said = []
    for key, what in (("process_cpu_percent", "process CPU"), ("latency_p50_us", "median latency")):
        measured = sorted((row for row in parts if row[key]), key=lambda row: float(row[key]))
        if measured and mine[key]:
            best = measured[0]
            said.append(f"{mine[key] / best[key]:.2f} times the {what} of {best['mode']}")
    return f"channel-adaptive has {' and '.join(said)}, the best of its parts." if said else ""


def _one_inside(by_mode: dict[str, Row]) -> str:
    one, each = by_mode.get("channel-enter"), by_mode.get("kept")
    if one is None or each is None or not each["process_cpu_percent"]:
        return ""
    cpu = one["process_cpu_percent"] / each["process_cpu_percent"]
    said = f"channel-enter uses {cpu:.2f} times the process CPU of kept"
    if each["latency_p99_us"] and one["latency_p99_us"]:
        said += f", at {one['latency_p99_us'] / each['latency_p99_us']:.2f} times its p99"
    return f"{said}."


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
