"""What a program's callbacks saw of their threads: told on stderr when the program ends."""

from __future__ import annotations

import atexit
import json
import sys
import threading

_here = threading.local()
_calls: dict[int, int] = {}
_told = {"calls": 0, "foreign_calls": 0, "repeated": 0, "survived": 0}
_lock = threading.Lock()


def _is_foreign() -> bool:
    me = threading.get_ident()
    known = [thread for thread in threading.enumerate() if thread.ident == me]
    return not known or isinstance(known[0], threading._DummyThread)


def visit() -> None:
    """Note one callback."""
    native = threading.get_native_id()
    foreign = _is_foreign()
    before = getattr(_here, "visits", 0)
    _here.visits = before + 1
    with _lock:
        _told["calls"] += 1
        _told["foreign_calls"] += foreign
        if foreign:
            earlier = _calls.get(native, 0)
            _calls[native] = earlier + 1
            # A callback on a thread that had one before: did that one's thread-local survive?
            _told["repeated"] += earlier > 0
            _told["survived"] += earlier > 0 and before > 0


def foreign_calls() -> int:
    """Return how many callbacks came on threads that Python did not make."""
    return _told["foreign_calls"]


def told() -> dict[str, int]:
    """Return all that was seen."""
    return _told | {"foreign_threads": len(_calls)}


@atexit.register
def _tell() -> None:
    print("witness", json.dumps(told()), file=sys.stderr)
