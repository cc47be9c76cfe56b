"""HTML: the page from its template: scripts and styles inline, and everything recorded escaped."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from moored.doctor import export_speedscope, names, words
from moored.doctor.findings import Finding, find_all
from moored.doctor.findings.finding import rerun
from moored.doctor.recording import Recording
from moored.doctor.verdict import verdict

from . import data

HERE = "moored.doctor.page"
SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    "format.js",
    "charts.js",
    "flame.js",
    "speedscope.js",
    "tables.js",
)
SPEEDSCOPE = "vendor/speedscope.js.gz"
SPEEDSCOPE_PRELUDE = "WebAssembly.instantiate = () => new Promise(() => {});\n"
"""Its demangler is WebAssembly, which the policy forbids; names come to it demangled."""

STYLES = ("vendor/uPlot.min.css", "page.css")


def export(recording: Recording) -> str:
    """Return the page."""
    findings = find_all(recording)
    said = verdict(recording, findings)
    script = "\n".join(map(_file, SCRIPTS))
    packed = files(HERE).joinpath(SPEEDSCOPE).read_bytes()
    return _fill(
        _file("template.html"),
        {
            "policy": escape(
                _policy(script.encode(), SPEEDSCOPE_PRELUDE.encode() + gzip.decompress(packed))
            ),
            "title": escape(f"moored doctor: {words.printable(recording.command)}"),
            "style": "\n".join(map(_file, STYLES)),
            "verdict": escape(said),
            "process": escape(_process(recording)),
            "findings": "\n".join(_finding(recording, one) for one in findings),
            "facts": "\n".join(_fact(name, value) for name, value in _facts(recording).items()),
            "again": "\n".join(_code(line) for line in _again(recording)),
            "data": _as_data(data.of(recording)),
            "profile": _as_data(export_speedscope.document(recording)),
            "speedscope_style": _file("vendor/speedscope.css"),
            "speedscope_prelude": SPEEDSCOPE_PRELUDE,
            "speedscope_packed": base64.b64encode(packed).decode(),
            "script": script,
        },
    )


@cache
def _file(name: str) -> str:
    """Return the text of a file of this folder."""
    return files(HERE).joinpath(name).read_text(encoding="utf-8")


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Put the values into their places, once: what is in a value is no place."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def _policy(*scripts: bytes) -> str:
    """Return the policy: nothing is loaded, and no script runs but these."""
    digests = [base64.b64encode(hashlib.sha256(one).digest()).decode() for one in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'"


def _as_data(value: Any) -> str:
    """Return JSON in which nothing can end the element that holds it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _process(recording: Recording) -> str:
    began = datetime.fromtimestamp(recording.started_unix_s, timezone.utc)
    return (
        f"{words.printable(recording.command)}: {recording.end} after "
        f"{words.seconds(recording.seconds)} with {words.time(recording.cpu_ns)} of CPU time, "
        f"on {began:%Y-%m-%d %H:%M} UTC"
    )


def _finding(recording: Recording, finding: Finding) -> str:
    cost = f'<span class="cost">{escape(finding.cost)}</span>' if finding.cost else ""
    places = names.places(recording, finding.site_keys)
    at = f'<p class="quiet">At {escape(places)}.</p>' if places else ""
    return (
        f"<li><h3>{escape(finding.title)} {cost}</h3>"
        f"{at}<p>{escape(finding.why)}</p>{_code(finding.remedy)}</li>"
    )


def _code(line: str) -> str:
    return f"<pre><code>{escape(words.printable(line))}</code></pre>"


def _fact(name: str, value: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(words.printable(value))}</dd></div>"


def _facts(recording: Recording) -> dict[str, str]:
    """Return what explains the figures: machine, versions, ways, and what recording cost."""
    own = recording.recording_ns
    share = words.percent(recording.share_of_cpu(own))
    facts = {str(name): str(value) for name, value in recording.machine.items()}
    facts |= {
        "Python": recording.python,
        "moored": recording.moored,
        "process": f"{recording.pid}, started by {recording.parent_pid}",
        "states": "kept (moored run)" if recording.kept else "as Python makes them",
        "urgent": "yes" if recording.urgent else "no",
        "switch interval": words.time(1e9 * recording.switch_interval_s),
        "recording took": f"{words.time(own)}, {share} of the CPU",
    }
    if recording.records_lost:
        facts["not counted"] = words.count(recording.records_lost, "record")
    return facts


def _again(recording: Recording) -> tuple[str, ...]:
    """Return the lines that record it again, and show what was recorded."""
    again = rerun(recording).removeprefix("moored run ")
    file = recording.path.rpartition("/")[2]
    return f"moored doctor {again}", f"moored doctor report {file} -f html -o report.html"
