"""Counts lines and words on the IO thread, with a threading.local that lasts as long as it does."""

import threading

import lines

counts = threading.local()


def count(line: str) -> None:
    """Note one line; called on the native IO thread."""
    counts.lines = getattr(counts, "lines", 0) + 1
    counts.words = getattr(counts, "words", 0) + len(line.split())
    print(f"{counts.lines} lines, {counts.words} words")


lines.on_line(count)
lines.wait()
