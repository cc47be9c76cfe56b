"""Process: the server and the load sender, each a process that never outlives its `with`."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from moored_lab.wakeup import paths
from moored_lab.wakeup.options import Options

Message = dict[str, Any]

START_S = 60.0
ANSWER_S = 30.0
LAST_LINES = 8


class LabFailed(Exception):
    """The experiment broke while it ran; the message says where and with what last words."""


class LabMissing(Exception):
    """The lab is not built or not installed here; the message says what to do."""


class TalkingProcess:
    """A child that says one JSON object a line; stdout and stderr are read as they come."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._words: deque[str] = deque(maxlen=LAST_LINES)
        try:
            # A session of its own: Ctrl-C reaches the controller alone, which ends both in order.
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                bufsize=1,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise LabMissing(
                f"cannot start the {name}: {command[0]}: {error.strerror}; check --python"
            ) from error
        self._readers = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def alive(self) -> bool:
        """Tell whether the child still runs."""
        return self._child.poll() is None

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send one JSON line to the child's stdin."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()
        except OSError:
            raise self.death() from None

    def hear(self, event: str, within_s: float, late: Sequence[str] = ()) -> Message:
        """Wait for the child to say `event`; drop the answers in `late`, which come too late."""
        while True:
            message = self._next(event, within_s)
            if message["event"] == event:
                return message
            if message["event"] == "error":
                reason = message.get("message", "no reason given")
                raise LabFailed(f"the {self.name} refused: {reason}")
            if message["event"] not in late:
                raise LabFailed(f"the {self.name} said '{message['event']}' instead of '{event}'")

    def _next(self, event: str, within_s: float) -> Message:
        try:
            line = self._said.get(timeout=within_s)
        except queue.Empty:
            raise LabFailed(f"the {self.name} did not say '{event}' in {within_s:g} s") from None
        if line is None:
            raise self.death()
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict) or "event" not in message:
            raise LabFailed(f"the {self.name} said what is not the protocol: {line.strip()[:200]}")
        return message

    def death(self) -> Exception:
        """Return the error that tells how the child ended, with its last lines on stderr."""
        code = self._wait(5.0)
        words = self._last_words()
        if code is None:
            return LabFailed(f"the {self.name} closed its output but still ran{words}")
        if code == 3 or "No module named 'moored" in words:
            return LabMissing(
                f"the lab's {self.name} cannot run here; install moored-lab for that interpreter "
                f"(in a checkout of moored: pip install . ./lab){words}"
            )
        how = f"exit code {code}"
        if code < 0:
            try:
                how = f"signal {signal.Signals(-code).name}"
            except ValueError:
                how = f"signal {-code}"
        return LabFailed(f"the {self.name} died ({how}){words}")

    def end(self) -> None:
        """End the child for sure: ask, then force; harmless when it has ended."""
        if self.alive():
            self._child.terminate()
            if self._wait(2.0) is None:
                self._child.kill()
        self._child.wait()
        for reader in self._readers:
            reader.join(1.0)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # stdin may hold a line that will not be read any more

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child, whatever happened."""
        self.end()

    def _wait(self, seconds: float) -> int | None:
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _last_words(self) -> str:
        self._readers[1].join(1.0)
        lines = [line.rstrip() for line in self._words if line.strip()]
        return "; its last lines on stderr:\n  " + "\n  ".join(lines) if lines else ""

    def _read_stdout(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._said.put(line)
        self._said.put(None)

    def _read_stderr(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self._words.append(line)


class Server(TalkingProcess):
    """The server under test; `ready` is what it said about itself."""

    ready: Message

    def __init__(
        self, options: Options, mode: str, handler_us: float, cpus: Sequence[int] | None
    ) -> None:
        command = [options.python, "-m", "moored_lab.wakeup.server"]
        command += ["--threads", str(options.threads), "--mode", mode]
        command += ["--handler-us", f"{handler_us:g}", "--main-busy", f"{options.main_busy:g}"]
        command += ["--queue", str(options.queue)]
        super().__init__("server", [*command, *_cpu_arguments(cpus)], options.env)

    def __enter__(self) -> Server:
        """Wait until the server listens."""
        try:
            self.ready = self.hear("ready", START_S)
        except BaseException:
            self.end()
            raise
        return self

    def switch(self, mode: str) -> Message:
        """Switch the mode in the running server; the answer tells about the phase that ended."""
        self.tell({"do": "mode", "mode": mode})
        try:
            return self.hear("mode", ANSWER_S)
        except LabFailed as error:
            raise LabFailed(f"switching to {mode}: {error}") from error

    def stats(self) -> Message:
        """Ask for the stats so far, and the latency of the running phase."""
        self.tell({"do": "stats"})
        return self.hear("stats", ANSWER_S)

    def stop(self) -> Message:
        """Let the server deliver what it has, and end; a switch cut short by Ctrl-C may be late."""
        self.tell({"do": "stop"})
        return self.hear("stopped", ANSWER_S, late=("mode", "stats"))


class Sender(TalkingProcess):
    """The load sender: open loop, Poisson arrivals."""

    def __init__(
        self, options: Options, port: int, seconds: float, cpus: Sequence[int] | None
    ) -> None:
        command = [str(paths.load_sender()), "--port", str(port), "--rate", f"{options.rate:g}"]
        command += ["--seconds", f"{seconds:g}", "--connections", str(options.connections)]
        command += ["--seed", str(options.seed)]
        super().__init__("load sender", [*command, *_cpu_arguments(cpus)])

    def __enter__(self) -> Sender:
        """Wait until the first event is about to be sent."""
        try:
            self.hear("started", START_S)
        except BaseException:
            self.end()
            raise
        return self

    def finish(self) -> Message:
        """Stop sending, close cleanly, and say how many events were sent."""
        if self.alive():
            self._child.terminate()
        return self.hear("done", ANSWER_S)


def _cpu_arguments(cpus: Sequence[int] | None) -> list[str]:
    return ["--cpu", ",".join(map(str, cpus))] if cpus else []
