"""`moored lab serve`: the lab's server in the foreground, for other people's clients."""

from __future__ import annotations

import argparse
import sys

from moored.cli.errors import CommandError, ExitCode
from moored_lab.wakeup import server as process
from moored_lab.wakeup.running import RunningServer, signal_descriptor

HELP = "serve HTTP (for wrk, ab, curl) or frames in one mode, until Ctrl-C"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: one of two protocols, a mode, and the server's own."""
    protocol = parser.add_mutually_exclusive_group(required=True)
    protocol.add_argument("--http", type=int, metavar="PORT", help="speak HTTP/1.1 on this port")
    protocol.add_argument("--port", type=int, help="speak the load sender's frames on this port")
    parser.add_argument("--mode", default="kept", help="how events reach Python (%(default)s)")
    process.add_server_arguments(parser)
    parser.set_defaults(handler_us=0.0)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes, then say what became of the events."""
    http = args.http is not None
    port = args.http if http else args.port
    try:
        process.check_server_arguments(args)
        options = process.server_options(args, port, http, "--http" if http else "--port")
        work = process.prepare(args)
        with (
            signal_descriptor() as signals,
            RunningServer(options, work.handle, [signals]) as server,
        ):
            _talk(
                f"serving {'HTTP' if http else 'frames'} on 127.0.0.1:{server.port}, mode "
                f"{args.mode}, a handler of {work.measured_us:.1f} us; Ctrl-C stops"
            )
            server.serve()
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(process.why_not_listening(error, port), ExitCode.FAILED) from error
    sums = server.stats()
    print(" ".join(f"{name} {sums[name]}" for name in ("received", "delivered", "lost", "refused")))
    return ExitCode.FINE


def _talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
