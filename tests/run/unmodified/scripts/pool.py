"""Native threads that call Python back: pool.c, by ctypes."""

import ctypes
import os
import threading
from pathlib import Path

_library = ctypes.CDLL(os.environ["POOL_LIBRARY"])
_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_int)
_library.pool_open.argtypes = [ctypes.c_int]
_library.pool_open.restype = ctypes.c_void_p
_library.pool_call.argtypes = [ctypes.c_void_p, _callback, ctypes.c_int]
_library.pool_call.restype = None
_library.pool_close.argtypes = [ctypes.c_void_p]
_library.pool_close.restype = None

LINES = 25
THREADS = 4


class Pool:
    """Native threads that wait for work; they have been joined when the block ends."""

    def __init__(self, size=THREADS):
        self._pool = _library.pool_open(size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _library.pool_close(self._pool)

    def call(self, function, times=1):
        """Call function(thread, call) that many times on each thread, and wait for all."""
        _library.pool_call(self._pool, _callback(function), times)


_here = threading.local()


def log_into(folder, name):
    """Return a callback that writes a line into a file of its thread.

    Each thread keeps its file in a threading.local, as loggers and database connections are kept.
    Python writes what is buffered when the file is finalised: when the thread has ended.
    """

    def log(thread, call):
        if not hasattr(_here, "file"):
            _here.file = (Path(folder) / f"{name}-{thread}.log").open("a")
        _here.file.write(f"{thread} {call}\n")

    return log


def write_logs(folder, name):
    """Write lines on native threads, join them, and return how many lines are in the files."""
    with Pool() as pool:
        pool.call(log_into(folder, name), LINES)
    return count_lines(folder, f"{name}-*.log")


def count_lines(folder, pattern="*.log"):
    """Return how many lines the files have."""
    return sum(len(path.read_text().splitlines()) for path in Path(folder).glob(pattern))
