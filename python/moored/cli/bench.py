"""moored bench: peers side by side."""

from __future__ import annotations

import argparse

from moored.cli import bench_attach, bench_callbacks, bench_delivery, bench_state

HELP = "compare ways into Python, side by side in one run"

BENCHES = {
    "attach": bench_attach,
    "callbacks": bench_callbacks,
    "delivery": bench_delivery,
    "state": bench_state,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks."""
    benches = parser.add_subparsers(metavar="BENCH", required=True)
    for name, bench in BENCHES.items():
        own = benches.add_parser(name, help=bench.HELP, description=bench.HELP)
        own.set_defaults(run=bench.run)
        bench.add_arguments(own)


def run(args: argparse.Namespace) -> int:
    """Never reached: the parser asks for a benchmark, and that one's run replaces this."""
    raise AssertionError(args)
