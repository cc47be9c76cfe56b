"""Export: the document of --json: a row for each site, and what else was recorded beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from . import cost, names
from .findings import Finding, find_all
from .recording import Counts, Recording, Site, Thread
from .verdict import verdict


def document(recording: Recording) -> dict[str, Any]:
    """Return the object: `rows` are the sites, the costliest first."""
    findings = find_all(recording)
    sites = sorted(recording.sites, key=lambda one: -cost.of_attaching(recording, one.counts))
    return {
        "moored": recording.moored,
        "python": recording.python,
        "machine": dict(recording.machine),
        "command": recording.command,
        "verdict": verdict(recording, findings),
        "process": _process(recording),
        "rows": [_site(recording, site) for site in sites],
        "threads": [_thread(thread) for thread in recording.threads],
        "findings": [_finding(finding) for finding in findings],
        "samples": [
            {
                "at_s": sample.at_s,
                "cpu_percent": {str(tid): percent for tid, percent in sample.cpu_percent.items()},
                "temporary_states": sample.temporary_states,
                "gil_wait_ns": sample.gil_wait_ns,
            }
            for sample in recording.samples
        ],
    }


def export(recording: Recording) -> str:
    """Return the document's text."""
    return json.dumps(document(recording), indent=2, ensure_ascii=False) + "\n"


def _process(recording: Recording) -> dict[str, Any]:
    fields = (
        "pid parent_pid started_unix_s seconds end cpu_ns kept urgent switch_interval_s "
        "per_call_cost_ns chunk_cost_ns recording_ns late_attaches locals_lost threads_of_one_call "
        "threadsafe_calls records_lost"
    )
    return {name: getattr(recording, name) for name in fields.split()}


def _counts(counts: Counts) -> dict[str, int]:
    return asdict(counts)


def _site(recording: Recording, site: Site) -> dict[str, Any]:
    return {
        "key": site.key,
        "site": names.site_name(site),
        "module": names.module_name(site),
        "binding": site.binding,
        "through": names.binding_name(site),
        "cost_ns": cost.of_attaching(recording, site.counts),
        "temporary_states_cost_ns": cost.of_temporary_states(recording, site.counts),
        **_counts(site.counts),
        "frames": [asdict(frame) for frame in site.frames],
    }


def _thread(thread: Thread) -> dict[str, Any]:
    return {
        "tid": thread.tid,
        "name": thread.name,
        "kind": thread.kind,
        "exited": thread.exited,
        "loop_wakes": thread.loop_wakes,
        "cpu_ns": thread.cpu_ns,
        "minor_faults": thread.minor_faults,
        "voluntary_switches": thread.voluntary_switches,
        "involuntary_switches": thread.involuntary_switches,
        **_counts(thread.counts),
        "sites": [{"key": key, **_counts(counts)} for key, counts in thread.sites],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return asdict(finding)
