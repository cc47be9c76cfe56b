"""Server: the process that `moored lab` drives: JSON lines in, one JSON line out for each.

`python -m moored_lab.wakeup.server --help` lists the options. The first line on stdout says that it
listens, and on which port; then it obeys {"do": "mode", "mode": ...}, {"do": "stats"} and
{"do": "stop"}. The end of stdin stops it too, as do SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import select
import sys
import threading
from collections.abc import Iterator, Sequence
from time import monotonic_ns
from typing import Any, NoReturn

from moored.cli.errors import ExitCode
from moored_lab import _server
from moored_lab.wakeup import handler
from moored_lab.wakeup.loops import impossible, possible
from moored_lab.wakeup.running import RunningServer, ServerOptions, signal_descriptor

PATIENCE_S = 10.0
"""How long a stop waits for the clients to finish; a signal does not wait."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server process; return its exit code."""
    parser = _Parser(prog="moored_lab.wakeup.server", description="The lab's server process.")
    add_server_arguments(parser)
    parser.add_argument("--mode", required=True, help="how events reach Python at first")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--http", action="store_true", help="speak HTTP/1.1 instead of frames")
    args = parser.parse_args(argv)
    try:
        check_server_arguments(args)
        options = server_options(args, args.port, args.http)
        work = prepare(args)
        with signal_descriptor() as signals:
            return Conversation(options, work, args.handler_us, signals).run()
    except ValueError as error:
        return _fail(str(error), ExitCode.USAGE)
    except OSError as error:
        return _fail(why_not_listening(error, args.port), ExitCode.FAILED)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a server, however it is started."""
    add = parser.add_argument
    add("--threads", type=int, default=1, help="IO threads (%(default)s)")
    add("--handler-us", type=float, default=20.0, help="the handler's work (%(default)g)")
    add("--main-busy", type=float, default=0.0, help="main's own work, %% of its time")
    add("--queue", type=int, default=65_536, help="events that may wait (%(default)s)")
    add("--cpu", metavar="LIST", help="keep the process on these CPUs, as in 0,1")


def check_server_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError with one clear line for the first option that cannot be used."""
    modes = _server.modes()
    if args.mode not in modes:
        raise ValueError(f"unknown mode '{args.mode}': choose one of {' '.join(modes)}")
    if args.mode in impossible():
        raise ValueError(f"mode {args.mode} cannot run here: {impossible()[args.mode]}")
    _check("--threads", args.threads, 1, 256)
    _check("--handler-us", args.handler_us, 0, 1e6)
    _check("--main-busy", args.main_busy, 0, 100)
    _check("--queue", args.queue, 1, 1 << 30)


def server_options(
    args: argparse.Namespace, port: int, http: bool, port_option: str = "--port"
) -> ServerOptions:
    """Collect the checked arguments."""
    _check(port_option, port, 0, 65_535)
    return ServerOptions(
        mode=args.mode,
        threads=args.threads,
        port=port,
        queue=args.queue,
        http=http,
        main_busy=args.main_busy,
    )


def prepare(args: argparse.Namespace) -> handler.Calibrated:
    """Go to the CPUs asked for, then cut the handler's work to length: there, and alone."""
    if args.cpu:
        try:
            os.sched_setaffinity(0, {int(cpu) for cpu in args.cpu.split(",")})
        except (ValueError, OSError, OverflowError):
            raise ValueError(f"--cpu {args.cpu}: give CPUs of this machine, as in 0,1") from None
    return handler.calibrate(args.handler_us)


def why_not_listening(error: OSError, port: int) -> str:
    """Explain why the server cannot listen on that port."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken: give another one, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} needs rights that this process has not: give one above 1023"
    return str(error)


class Conversation:
    """The talk with the controller over stdin and stdout, and the server that it is about."""

    def __init__(
        self, options: ServerOptions, work: handler.Calibrated, asked_us: float, signals: int
    ) -> None:
        self._signals = signals
        self._stdin = sys.stdin.fileno()
        self._received = b""
        self._server = RunningServer(options, work.handle, [self._stdin, signals])
        self._modes = possible()
        self._ready = {
            "event": "ready",
            "port": self._server.port,
            "pid": os.getpid(),
            "main_tid": threading.get_native_id(),
            "io_tids": self._server.io_tids,
            "handler_us_asked": asked_us,
            "handler_us": round(work.measured_us, 3),
            "handler_loops": work.loops,
            "python": platform.python_version(),
            "modes": self._modes,
            "impossible": impossible(),
        }

    def run(self) -> int:
        """Serve until told to stop, then tell the sums."""
        patience_s = 0.0
        try:
            self._say(self._ready)
            patience_s = self._obey()
        except BrokenPipeError:
            pass  # it listens no more, which is as good as an order to stop
        finally:
            self._server.stop(patience_s)
        try:
            self._say(
                {
                    "event": "stopped",
                    "stats": self._server.stats(),
                    "latency": self._server.latency(),
                    "states": _server.states(),
                }
            )
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

    def _obey(self) -> float:
        """Serve and answer; return how long the stop that came may wait for the clients."""
        while True:
            self._server.serve()
            readable, _, _ = select.select([self._stdin, self._signals], [], [], 0)
            if self._signals in readable:
                return 0.0
            if self._stdin in readable:
                for line in self._lines():
                    if line is None:
                        return PATIENCE_S
                    order = _order(line)
                    if order.get("do") == "stop":
                        return PATIENCE_S
                    self._say(self._answer(order))

    def _lines(self) -> Iterator[bytes | None]:
        """Give the whole lines that have arrived; None is the end of stdin."""
        # Past Python's buffer: bytes that wait in it would not make the descriptor readable.
        got = os.read(self._stdin, 65_536)
        *lines, self._received = (self._received + got).split(b"\n")
        yield from lines
        if not got:
            yield None

    def _answer(self, order: dict[str, Any]) -> dict[str, Any]:
        match order:
            case {"do": "mode", "mode": str(mode)} if mode in self._modes:
                ended = self._server.switch(mode)
                return {"event": "mode", "mode": mode, "monotonic_ns": monotonic_ns(), **ended}
            case {"do": "stats"}:
                return {
                    "event": "stats",
                    "mode": self._server.mode,
                    "monotonic_ns": monotonic_ns(),
                    "stats": self._server.stats(),
                    "latency": self._server.latency(),
                }
            case {"do": "mode"}:
                return _error(f"unknown mode {order.get('mode')!r}")
        return _error('expected {"do": "mode", "mode": ...}, {"do": "stats"} or {"do": "stop"}')

    @staticmethod
    def _say(message: dict[str, Any]) -> None:
        print(json.dumps(message), flush=True)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


def _order(line: bytes) -> dict[str, Any]:
    try:
        order = json.loads(line)
    except ValueError:
        return {}
    return order if isinstance(order, dict) else {}


def _error(message: str) -> dict[str, Any]:
    return {"event": "error", "message": message}


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} {value:g}: give {low:g} to {high:g}")


def _fail(message: str, code: int) -> int:
    print(f"moored_lab.wakeup.server: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
