"""What a case's process runs: it starts the native threads, and then Python ends under them.

Told by the environment, so that an embedding program may run it as well, once a life. Imports
nothing of moored but the threads, unless event loops share a channel.
"""

from __future__ import annotations

import atexit
import importlib
import itertools
import json
import logging  # noqa: F401  # here: a first import while another thread forks breaks its hooks
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

case = json.loads(os.environ["MOORED_TORTURE_CASE"])
case_modules = json.loads(os.environ["MOORED_TORTURE_MODULES"])
sys.path[:0] = case_modules

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later: of a fork with threads
local = threading.local()
blocker = threading.Event()
fork_once = threading.Lock()
torture_threads: Any = None
"""The native module: imported by main(), which may be an exit handler."""
loops: list[threading.Thread] = []
LOG_THREADS, LOG_CALLS = 3, 20


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


def interlude(name: str) -> None:
    """Have native threads and libraries come and go that know nothing of the rest."""
    if name == "plugin":
        torture_threads.use_plugin(f"{case_modules[0]}/torture_plugin.so")
        return
    logs = Path(tempfile.mkdtemp(prefix="moored-torture-"))
    try:
        if name == "join in a forked child":
            child = os.fork()
            if child == 0:
                try:
                    join_foreign(logs, with_gil=False, keeps=False)
                finally:
                    os._exit(0)
            expect(wait_for(child), "the child that joined")
        else:
            keeps = name.startswith("keep")
            join_foreign(logs, with_gil=name.endswith("with the GIL"), keeps=keeps)
            if keeps and not case["launcher"]:
                # Without the launcher the join may come first.
                while lines_of(logs) < LOG_THREADS * LOG_CALLS:
                    time.sleep(0.001)
        if lines_of(logs) != LOG_THREADS * LOG_CALLS:
            os.write(2, f"torture: {name}: {lines_of(logs)} lines after the join\n".encode())
    finally:
        shutil.rmtree(logs)


def join_foreign(logs: Path, *, with_gil: bool, keeps: bool) -> None:
    """Have native threads write files that they keep in a threading.local, and join them."""
    here = threading.local()
    names = itertools.count()

    def log() -> None:
        if not hasattr(here, "file"):
            here.file = (logs / str(next(names))).open("w")
            here.left = 0
        here.file.write("line\n")
        here.left += 1
        if here.left % 3 == 0:
            raise RuntimeError("left set")

    is_clean = bool(case["launcher"]) or not keeps
    torture_threads.join_foreign(LOG_THREADS, log, LOG_CALLS, with_gil, keeps, is_clean)


def lines_of(logs: Path) -> int:
    """Count what is in the files."""
    return sum(path.read_text().count("\n") for path in logs.iterdir())


def listen() -> None:
    """Take events in an event loop of this thread's, until the channel is closed."""
    import asyncio

    import moored

    async def take_all() -> None:
        channel: moored.Channel[int] = moored.Channel(torture_threads.capsule())
        try:
            while True:
                torture_threads.saw([await channel.get()])
        except moored.ChannelClosed:
            pass

    asyncio.run(take_all())


def end_listening() -> None:
    """Close the channel; each loop hears of it."""
    torture_threads.close_channel()
    for loop in loops:
        loop.join()


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
    global torture_threads
    torture_threads = importlib.import_module("torture_threads")
    torture_threads.report_to(int(os.environ["MOORED_TORTURE_REPORT"]))
    torture_threads.set_bound(case["bound_ms"])
    if case["urgent"]:
        torture_threads.be_urgent()
    if case["ending"] == "SIGINT":  # which jobs in the background are born to ignore
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if case["tracemalloc"]:
        import tracemalloc

        tracemalloc.start()
    if case["ending"] == "atexit":
        for worker in case["workers"]:
            atexit.register(start, worker)
    if any(worker["kind"] in ("send", "drop") for worker in case["workers"]):
        handler = None if case["consumers"] else torture_threads.saw
        torture_threads.open_channel(case["delivery"], case["overflow"], case["capacity"], handler)
        for _ in range(case["consumers"]):
            loops.append(threading.Thread(target=listen))
            loops[-1].start()
        # A daemon thread of Python's does not survive another life of the interpreter.
        may_start = case["lives"] == 1 and case["ending"] != "first call in atexit"
        if case["delivery"] in ("poll", "wake") and may_start and not loops:
            threading.Thread(target=serve_channel, daemon=True).start()
    for worker in case["workers"]:
        start(worker)
    if case["subinterpreter"] != "none":
        assert torture_threads.visit_subinterpreter(case["subinterpreter"] == "own GIL")
    if case["fork"].startswith("main"):
        fork_from_main()
    for name in case["interludes"]:
        interlude(name)
    if case["begun"]:
        endless = any(
            worker["calls"] == 0 and worker["kind"] != "overstay" for worker in case["workers"]
        )
        torture_threads.wait_for_work(case["begun"] if endless else 1)
    if loops:
        end_listening()
    end()


if case["ending"] == "first call in atexit":
    atexit.register(main)
else:
    main()
