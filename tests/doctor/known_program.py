"""A program of known parts: prints, as JSON, what each of them counted and measured by itself.

A ctypes thread at 5,000 calls a second, a pybind11 pool at 2,000, an idle stream by cffi, a thread
of Python's, and a main thread that is busy for 60 % of its time.
"""

import ctypes
import json
import os
import threading
import time

import cffi
import known_pool

SECONDS = 1.0
BUSY_S, IDLE_S = 0.006, 0.004


class Times(ctypes.Structure):
    """As in known_times.h."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("calls", "outside_ns", "inside_ns")]


path = os.environ["KNOWN_PARTS"]
parts, spend = ctypes.CDLL(path), ctypes.PyDLL(path).spend
for runs in (parts.run_timed_sensor, parts.run_timed_stream):
    runs.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.POINTER(Times)]
sensor_times, stream_times = Times(), Times()
told = {}


def sensor():
    """5,000 calls a second through ctypes."""
    callback = ctypes.CFUNCTYPE(None)(spend)
    parts.run_timed_sensor(
        ctypes.cast(callback, ctypes.c_void_p), int(5_000 * SECONDS), 200_000, sensor_times
    )


def pool():
    """2,000 calls a second by two threads of pybind11's."""
    told["pool"] = known_pool.run_pool(2, int(1_000 * SECONDS), 1_000_000)


def stream():
    """20 calls a second through cffi."""
    ffi = cffi.FFI()
    callback = ffi.callback("void(void)", spend)
    address = int(ffi.cast("uintptr_t", callback))
    parts.run_timed_stream(address, int(20 * SECONDS), 50_000_000, stream_times)


def count():
    """Run in Python alone."""
    while any(part.is_alive() for part in threads):
        sum(range(1_000))
        time.sleep(0.01)


threads = [threading.Thread(target=part) for part in (sensor, pool, stream)]
counting = threading.Thread(target=count)
for thread in (*threads, counting):
    thread.start()
while any(thread.is_alive() for thread in threads):
    until = time.perf_counter() + BUSY_S
    while time.perf_counter() < until:
        pass
    time.sleep(IDLE_S)
for thread in (*threads, counting):
    thread.join()
for name, times in (("sensor", sensor_times), ("stream", stream_times)):
    told[name] = [times.calls, times.outside_ns, times.inside_ns]
print(json.dumps(told))
