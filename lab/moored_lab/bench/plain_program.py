"""Plain program: work in Python and in C, on the main thread alone; says what each turn took.

What `moored run` costs a program that has no foreign thread is measured on it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import time
import zlib

WORDS = re.compile(r"\w+")
TEXT = "native threads stay moored to Python, and Python does not notice; " * 40
LINES = [word.encode() for word in TEXT.split()]


def work() -> int:
    """Do some of everything: bytecode, allocation, and C code that is called often."""
    total = 0
    for at in range(12_000):
        total += (at * at) % 7
    rows = [{"at": at, "root": math.sqrt(at), "name": f"row {at}"} for at in range(1_500)]
    total += len(json.loads(json.dumps(rows)))
    rows.sort(key=lambda row: str(row["name"]))
    for _ in range(8):
        total += len({word.lower() for word in WORDS.findall(TEXT)})
    # Short calls into other libraries; nothing that asks malloc for large blocks, because what
    # those cost depends on where the heap happens to end.
    for line in LINES * 10:
        total += zlib.crc32(line) & 1
        total += hashlib.sha256(line).digest()[0] & 1
    return total


def main() -> int:
    """Work once for each line on stdin; answer with the CPU time that it took."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the same for all that are compared
    work()
    print(json.dumps({"event": "ready"}), flush=True)
    for _ in sys.stdin:
        begin = time.process_time_ns()
        work()
        print(json.dumps({"event": "worked", "ns": time.process_time_ns() - begin}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
