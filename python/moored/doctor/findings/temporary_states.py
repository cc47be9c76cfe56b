"""Rule: thread states are made and thrown away, call after call."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import cost, words
from moored.doctor.recording import Recording

from .finding import Finding, is_worth_it, rerun
from .sites import by

LEAST_STATES = 100
"""Fewer may be one for each thread, which is what a kept state costs as well."""


def find(recording: Recording) -> Iterator[Finding]:
    """Find the sites that pay for temporary states."""
    states = recording.total.temporary_states
    whole = sum(cost.of_temporary_states(recording, site.counts) for site in recording.sites)
    if states < LEAST_STATES or not is_worth_it(recording, whole):
        return
    yield Finding(
        rule="temporary-states",
        title=f"{words.count(states, 'temporary thread state')} were made and thrown away",
        cost_ns=whole,
        share_of_cpu=recording.share_of_cpu(whole),
        site_keys=by(recording.sites, lambda counts: cost.of_temporary_states(recording, counts)),
        remedy="@moored.keeps_thread" if recording.kept else rerun(recording),
        why=_why(recording),
    )


def _why(recording: Recording) -> str:
    if recording.kept:
        return (
            "These calls do not reach what moored run redirects, so their states stay temporary. "
            "Decorate the callback: its thread keeps its state from the first call on."
        )
    return (
        "A native thread that has no thread state is given one for each call, with memory that is "
        "mapped and unmapped. Under moored run it keeps the first; or decorate the callback with "
        "@moored.keeps_thread, or call moored.install() once to make such states cheap."
    )
