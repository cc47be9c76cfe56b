"""Rule: native threads came in after the interpreter had begun to end."""

from __future__ import annotations

from collections.abc import Iterator

from moored.doctor import words
from moored.doctor.recording import Recording

from .finding import Finding


def find(recording: Recording) -> Iterator[Finding]:
    """Find late attaches: one is enough to end a process badly."""
    late = recording.late_attaches
    if late < 1:
        return
    yield Finding(
        rule="late-attaches",
        title=f"{words.count(late, 'attach', 'attaches')} came after Python had begun to end",
        cost_ns=0,
        share_of_cpu=0.0,
        site_keys=(),
        remedy="atexit.register(stop)  # what stops the library's threads, before Python ends",
        why="CPython ends such a thread where it stands, lets it hang, or crashes. Stop and join "
        "the threads in atexit; native code of your own attaches by moored::try_attach(), which "
        "refuses instead.",
    )
