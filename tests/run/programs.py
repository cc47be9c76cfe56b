"""Programs that the tests beside it run: a library that calls back, and the launcher."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
LAUNCHER = Path(sys.executable).with_name("moored")

PREAMBLE = """
import ctypes, os, sys, threading
import caller
from caller import CALLBACK
here = threading.local()
visits = []
def visit():
    here.visits = getattr(here, "visits", 0) + 1
    visits.append(here.visits)
"""

CALLER = """
import ctypes, os
CALLBACK = ctypes.CFUNCTYPE(None)
_path = os.path.join(os.path.dirname(__file__), "native_caller.so")
free = ctypes.CDLL(_path)     # lets go of the GIL
holding = ctypes.PyDLL(_path)  # keeps it
for _library in (free, holding):
    for _name in ("call_on_a_thread", "hammer", "start_thread"):
        getattr(_library, _name).argtypes = [CALLBACK, ctypes.c_long]
    _library.call_on_threads.argtypes = [CALLBACK, ctypes.c_long, ctypes.c_long]
def immortal(function):
    # Native threads may still call it while the interpreter frees everything.
    call = CALLBACK(function)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))
    return call
"""


THREE_VISITS = (
    PREAMBLE
    + """
caller.free.call_on_a_thread(CALLBACK(visit), 3)
print(visits, flush=True)
"""
)
