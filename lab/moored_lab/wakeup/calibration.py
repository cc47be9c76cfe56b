"""Calibration: pick the handler's work so that IO loads main to the target in poll mode."""

from __future__ import annotations

from moored_lab.report.progress import Progress
from moored_lab.wakeup.cpus import Places
from moored_lab.wakeup.options import POLLS, TARGET_MAIN_PERCENT, Options
from moored_lab.wakeup.process import Sender, Server
from moored_lab.wakeup.sampling import Sampler, usage

PROBE_S = 0.8
PROBES = 3


def pick_handler_us(options: Options, where: Places, progress: Progress) -> float:
    """Try a few handler times in short runs, and return the one that meets the target.

    A handler in place costs more than its loop alone (caches, clock steps), and by how much
    depends on the machine; so main is measured and not computed.
    """
    target = min(TARGET_MAIN_PERCENT + options.main_busy, 90.0)
    # All the time that the target leaves for each event: the handler's share of it is less.
    budget_us = 1e4 * TARGET_MAIN_PERCENT / options.rate
    handler_us = 0.5 * budget_us
    tried: list[tuple[float, float]] = []
    for probe in range(PROBES):
        progress(0.0, f"calibrating, handler {handler_us:.1f} us")
        main = main_percent(options, handler_us, where)
        tried.append((handler_us, main))
        if probe > 0 and abs(main - target) < 1.0:
            break
        handler_us = min(next_handler_us(tried, target), budget_us)
    return round(handler_us, 2)


def next_handler_us(tried: list[tuple[float, float]], target: float) -> float:
    """Follow the line through the last two tries, or through zero as long as there is one."""
    handler_us, main = tried[-1]
    if len(tried) > 1:
        earlier_us, earlier_main = tried[-2]
        slope = (main - earlier_main) / (handler_us - earlier_us or 1.0)
        if slope > 0:
            better = handler_us + (target - main) / slope
            # Noise can make the line flat: no step is larger than a factor of two.
            return min(max(better, handler_us / 2), handler_us * 2)
    return min(max(handler_us * target / max(main, 1.0), handler_us / 4), handler_us * 4)


def main_percent(options: Options, handler_us: float, where: Places) -> float:
    """Measure main's CPU in the poll mode with this handler, in a server of its own."""
    with Server(options, POLLS[0], handler_us, where.server) as server:
        main_tid = int(server.ready["main_tid"])
        with Sender(options, int(server.ready["port"]), PROBE_S + 30, where.others) as sender:
            sampler = Sampler(server.pid)
            sampler.watch(0.25, lambda: None)
            first = sampler.take()
            sampler.watch(PROBE_S, lambda: None)
            used = usage(sampler.samples[first:], main_tid)
            sender.finish()
        server.stop()
    return used.main_cpu_percent if used else 0.0
