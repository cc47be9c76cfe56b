"""The lab's server and load sender as child processes that cannot outlive a time limit."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from support.limits import HANG_S

from moored_lab.wakeup import paths
from moored_lab.wakeup.loops import possible

MODES = possible()
"""Those that this interpreter can run."""


class Child:
    """A process that talks in lines; used in a `with`, and killed when its time is over."""

    def __init__(self, *command: object) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        self._limit = threading.Timer(HANG_S, self.process.kill)
        self._limit.start()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._limit.cancel()
        self.process.communicate()

    def hear(self) -> dict[str, Any]:
        """Read one JSON line; its absence is a failure with the child's last words."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the child ended: {self.process.communicate()[1]}"
        return dict(json.loads(line))

    def signal(self, which: int) -> None:
        self.process.send_signal(which)

    def exit_code(self) -> int:
        return self.process.wait(HANG_S)


class Server(Child):
    """A running server; `ready` is what it said first."""

    def __init__(self, mode: str, *options: object) -> None:
        command = [sys.executable, "-m", "moored_lab.wakeup.server", "--handler-us", "2"]
        super().__init__(*command, "--mode", mode, *options)
        self.ready = self.hear()
        self.port = int(self.ready["port"])

    def ask(self, **order: object) -> dict[str, Any]:
        self.tell(json.dumps(order))
        return self.hear()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def stop(self) -> dict[str, Any]:
        stopped = self.ask(do="stop")
        assert stopped["event"] == "stopped"
        assert self.exit_code() == 0
        return stopped


class Sender(Child):
    """A running load sender; it has connected when this returns."""

    def __init__(self, port: int, rate: int, seconds: float, *options: object) -> None:
        command = [paths.load_sender(), "--port", port, "--rate", rate, "--seconds", seconds]
        super().__init__(*command, *options)
        assert self.hear()["event"] == "started"

    def done(self) -> int:
        """Wait for the end; return how many events were sent."""
        done = self.hear()
        assert done["event"] == "done"
        assert done["unsent"] == 0
        assert self.exit_code() == 0
        return int(done["sent"])


def accounted(stats: dict[str, int]) -> int:
    """Return the events that the server can account for; at its end none is queued any more."""
    assert stats["queued"] == 0
    total = stats["delivered"] + stats["lost"] + stats["refused"]
    assert total == stats["received"]
    return total
