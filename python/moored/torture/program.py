"""What a case's process runs: it starts the native threads, and then Python ends under them.

Told by the environment, so that an embedding program may run it as well, once a life. Imports
nothing of moored but the threads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

case = json.loads(os.environ["MOORED_TORTURE_CASE"])
sys.path[:0] = json.loads(os.environ["MOORED_TORTURE_MODULES"])

import torture_threads  # type: ignore[import-not-found]  # noqa: E402

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later: of a fork with threads
local = threading.local()
blocker = threading.Event()
fork_once = threading.Lock()


def work() -> None:
    """Do what a callback does."""
    local.visits = getattr(local, "visits", 0) + 1
    if case["work"] == "little":
        threading.current_thread()
    elif case["work"] == "much":
        sum(range(5_000))
    elif case["work"] == "waits":
        time.sleep(0.000_1)  # no lock, which another thread might hold in the moment of a fork
    if case["fork"].startswith("native") and fork_once.acquire(blocking=False):
        fork_from_native_thread()


def fork_from_native_thread() -> None:
    """Fork within a callback; the child ends at once, or becomes another program."""
    if case["fork"] == "native and exec":
        try:
            child = fork_and_exec()
        except RuntimeError:
            return  # 3.12 and later: not at the end of the interpreter
        expect(wait_for(child), "the other program")
    else:
        expect(torture_threads.fork_natively(), "the native thread's child")


def fork_and_exec() -> int:
    """Replace the child by another program."""
    child = os.fork()
    if child == 0:
        try:
            os.execv("/bin/true", ["true"])
        finally:
            os._exit(98)
    return child


def fork_from_main() -> None:
    """Fork; the child's own native threads must be able to enter, and it to end."""
    if case["fork"] == "main and exec":
        expect(wait_for(fork_and_exec()), "the other program")
        return
    child = os.fork()
    if child == 0:
        case["fork"] = "none"
        torture_threads.start("attach", 2, 10, False, False, "none", work, 0, 0)
        # CPython 3.15's own: its end waits in the child for guards of threads that are not there.
        if case["ending"] == "embedded" or sys.version_info >= (3, 15):
            os._exit(0)
        sys.exit(0)
    expect(wait_for(child), "main's child")


def wait_for(child: int) -> int:
    """Give the child's exit code, or minus its signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def expect(code: int, what: str) -> None:
    """Say it when a child did not end well."""
    if code != 0:
        os.write(2, f"torture: {what} ended with {code}\n".encode())


def address_of(kind: str) -> tuple[int, int]:
    """Give another binding's callback: a C function, and what it is to be called with."""
    if kind in ("ctypes", "pybind11", "nanobind"):
        made: tuple[int, int] = __import__(f"{kind}_callback").make(work)
        return made
    return 0, 0


def start(worker: dict[str, Any]) -> None:
    """Start some native threads."""
    torture_threads.start(
        *(worker["kind"], worker["threads"], worker["calls"], worker["joined"]),
        *(worker["comes_back"], worker["farewell"], work, *address_of(worker["kind"])),
    )


def serve_channel() -> None:
    """Deliver what no sender delivers by itself."""
    while not blocker.wait(0.000_5):
        torture_threads.deliver()


def end() -> None:
    """End as the case says; whatever is left to do is Python's."""
    ending = case["ending"]
    if ending == "sys.exit":
        sys.exit(7)
    if ending == "exception":
        raise RuntimeError("by the case")
    if ending == "os._exit":
        os._exit(7)
    if ending in ("SIGINT", "SIGTERM"):
        os.kill(os.getpid(), getattr(signal, ending))
        blocker.wait(20)
    if ending == "thread exits":
        thread = threading.Thread(target=sys.exit, args=(3,))
        thread.start()
        thread.join()


def main() -> None:
    """Run the case."""
    torture_threads.report_to(int(os.environ["MOORED_TORTURE_REPORT"]))
    torture_threads.set_bound(case["bound_ms"])
    if case["ending"] == "SIGINT":  # which jobs in the background are born to ignore
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if case["ending"] == "atexit":
        import atexit

        for worker in case["workers"]:
            atexit.register(start, worker)
    if any(worker["kind"] == "send" for worker in case["workers"]):
        torture_threads.open_channel(
            case["delivery"], case["overflow"], case["capacity"], torture_threads.saw
        )
        # A daemon thread of Python's does not survive another life of the interpreter.
        if case["delivery"] in ("poll", "wake") and case["lives"] == 1:
            threading.Thread(target=serve_channel, daemon=True).start()
    for worker in case["workers"]:
        start(worker)
    if case["subinterpreter"] != "none":
        assert torture_threads.visit_subinterpreter(case["subinterpreter"] == "own GIL")
    if case["fork"].startswith("main"):
        fork_from_main()
    if case["begun"]:
        endless = any(
            worker["calls"] == 0 and worker["kind"] != "overstay" for worker in case["workers"]
        )
        torture_threads.wait_for_work(case["begun"] if endless else 1)
    end()


main()
