"""Verdict: one sentence that says in plain words what a recording shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import cost, names, words
from .findings import Finding
from .recording import Counts, Recording, Site


def verdict(recording: Recording, findings: Sequence[Finding]) -> str:
    """Say the costliest thing first: figure, time, share, and where it comes from."""
    total = recording.total
    ran = words.seconds(recording.seconds)
    if not total.calls:
        return f"No native thread entered Python in {ran}."
    if not findings:
        calls = words.count(total.calls, "call")
        return (
            f"Nothing to mend: {calls} from native threads in {ran}, "
            f"{words.count(total.temporary_states, 'temporary thread state')}, "
            f"{words.time(total.wait_ns)} of waiting for the GIL."
        )
    first = findings[0]
    if first.rule == "temporary-states":
        share = words.percent(first.share_of_cpu)
        return (
            f"{words.count(total.temporary_states, 'temporary thread state')} in {ran}: "
            f"{words.time(first.cost_ns)}, {share} of the process's CPU; "
            + _mostly(recording, lambda counts: cost.of_temporary_states(recording, counts))
        )
    if first.rule in ("busy-main", "busy-threads"):
        behind = "main" if first.rule == "busy-main" else "other threads"
        return (
            f"{words.time(first.cost_ns)} of waiting for the GIL behind {behind} in {ran}, "
            f"up to {words.time(total.longest_wait_ns)} at a time; "
            + _mostly(recording, lambda counts: _waited(first, counts))
        )
    return f"{first.title} in {ran}" + (f": {first.cost}." if first.cost else ".")


def _waited(finding: Finding, counts: Counts) -> int:
    is_main = finding.rule == "busy-main"
    return counts.wait_for_main_ns if is_main else counts.wait_for_others_ns


def _mostly(recording: Recording, ns: Callable[[Counts], int]) -> str:
    """Say which module most of it comes from, through which binding, in which thread."""
    by_module: dict[tuple[str, str], list[Site]] = {}
    for site in recording.sites:
        key = names.module_name(site), names.binding_name(site)
        by_module.setdefault(key, []).append(site)
    costs = {key: sum(ns(site.counts) for site in sites) for key, sites in by_module.items()}
    module, binding = max(costs, key=lambda key: costs[key])
    share = costs[module, binding] / max(1, sum(costs.values()))
    keys = frozenset(site.key for site in by_module[module, binding])
    thread, of_calls = names.costliest_thread(recording, keys)
    text = f"{words.percent(share)} from {module}"
    if binding != module:
        text += f" through {binding}"
    if thread and of_calls >= 0.5:
        text += f" in {thread}" if thread.startswith("thread") else f" in thread {thread}"
    return text + "."
