"""Wakeup: the ThreadWakeup experiment, mode after mode in one running server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from moored_lab.report.document import describe
from moored_lab.report.progress import Progress, silent
from moored_lab.wakeup.background import DISTURBED_PERCENT, read_ticks
from moored_lab.wakeup.calibration import pick_handler_us
from moored_lab.wakeup.cpus import Places, places, staying_on
from moored_lab.wakeup.findings import findings
from moored_lab.wakeup.options import TARGET_MAIN_PERCENT, Options
from moored_lab.wakeup.phases import ENDS, Phase, Row, rows_of
from moored_lab.wakeup.process import LabFailed, LabMissing, Message, Sender, Server
from moored_lab.wakeup.sampling import INTERVAL_S, ProcessGone, Sample, Sampler, usage

__all__ = ["LabFailed", "LabMissing", "Options", "Result", "run"]


@dataclass
class Result:
    """All that a run found out, complete or cut short by Ctrl-C."""

    options: Options
    python: str
    handler_us: float
    handler_us_measured: float
    handler_picked: bool
    where: Places
    main_tid: int
    phases: list[Phase] = field(default_factory=list)
    raw_samples: list[Sample] = field(default_factory=list)
    sent: int = 0
    sent_late_p99_us: float = 0.0
    stats: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    background_cpu_percent: float = 0.0
    """What everything else on the machine used meanwhile, in percent of one CPU."""
    interrupted: bool = False

    @property
    def rows(self) -> list[Row]:
        """One row for each mode that was measured, in the order of the modes."""
        return rows_of(self.phases, self.options.modes, self.options.reference)

    @property
    def findings(self) -> list[str]:
        """What the rows say."""
        said = findings(self.rows, self.options.reference)
        if self.background_cpu_percent >= DISTURBED_PERCENT:
            said.append(
                f"Other programs used {self.background_cpu_percent:.0f} % of a CPU meanwhile: "
                "the numbers are disturbed."
            )
        return said

    @property
    def setup(self) -> list[str]:
        """How the numbers were made, in a few lines for the reader."""
        options = self.options
        how = (
            f"picked to load main to about {TARGET_MAIN_PERCENT:.0f} % by IO in poll15"
            if self.handler_picked
            else "as asked"
        )
        threads = f"{options.threads} IO thread" + ("s" if options.threads > 1 else "")
        rounds = f"{options.repeat} round" + ("s" if options.repeat > 1 else "")
        return [
            f"Python {self.python}, {threads}, {options.rate:,.0f} events/s over "
            f"{options.connections} connections, {rounds} of {options.seconds:g} s a mode",
            f"handler {self.handler_us:g} us, {how}; {self.handler_us_measured:.1f} us when timed "
            "alone",
            f"{self.where}; queue of {options.queue:,} events; "
            f"main busy {options.main_busy:g} % with work of its own",
        ]

    @property
    def imbalance(self) -> str | None:
        """Say what is wrong with the books; None when every event is accounted for."""
        ended = {what: int(self.stats.get(what, 0)) for what in ENDS}
        if sum(ended.values()) == self.sent:
            return None
        parts = " + ".join(f"{count} {what}" for what, count in ended.items())
        return (
            f"the events do not add up: {parts} = {sum(ended.values())}, but {self.sent} were sent "
            f"and {self.stats.get('received', 0)} received"
        )

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Every sample: CPU since the one before, and what each thread used since its birth."""
        zero = self.raw_samples[0].monotonic_ns if self.raw_samples else 0
        samples = []
        for earlier, later in pairwise(self.raw_samples):
            used = usage([earlier, later], self.main_tid)
            middle_ns = (earlier.monotonic_ns + later.monotonic_ns) // 2
            now = [phase for phase in self.phases if phase.switched_ns <= middle_ns]
            if used is None or not now:
                continue
            samples.append(
                {
                    "from_s": round((earlier.monotonic_ns - zero) / 1e9, 6),
                    "to_s": round((later.monotonic_ns - zero) / 1e9, 6),
                    "mode": now[-1].mode,
                    "round": now[-1].round,
                    "main_cpu_percent": round(used.main_cpu_percent, 3),
                    "others_cpu_percent": round(used.others_cpu_percent, 3),
                    "threads": {str(tid): asdict(use) for tid, use in later.threads.items()},
                }
            )
        return samples

    @property
    def switches(self) -> list[dict[str, Any]]:
        """When each mode was switched on, on the clock of the samples."""
        zero = self.raw_samples[0].monotonic_ns if self.raw_samples else 0
        return [
            {
                "at_s": round((phase.switched_ns - zero) / 1e9, 6),
                "mode": phase.mode,
                "round": phase.round,
            }
            for phase in self.phases
        ]

    def to_json(self, command: str = "moored lab wakeup") -> dict[str, Any]:
        """Return the common object, with all samples and the books."""
        options = asdict(self.options)
        del options["python"]  # the version says it; a path would only name the machine
        return describe(command, self.rows, self.python) | {
            "reference": self.options.reference,
            "options": options,
            "setup": self.setup,
            "handler_us": self.handler_us,
            "handler_us_measured": self.handler_us_measured,
            "main_tid": self.main_tid,
            "events": {"sent": self.sent, **self.stats},
            "sent_late_p99_us": self.sent_late_p99_us,
            "states": self.states,
            "background_cpu_percent": round(self.background_cpu_percent, 1),
            "findings": self.findings,
            "interrupted": self.interrupted,
            "switches": self.switches,
            "samples": self.samples,
        }


def run(options: Options, progress: Progress = silent) -> Result:
    """Measure every mode in every round; raises LabFailed or LabMissing."""
    where = places(options.pin)
    with staying_on(where.others), ended_by_sigterm():
        try:
            handler_us = options.handler_us
            if handler_us is None:
                handler_us = pick_handler_us(options, where, progress)
            return _measure(options, handler_us, where, progress)
        except ProcessGone as error:
            raise LabFailed(f"the server died while it was sampled: {error}") from error


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C for a while: server and sender end in order, and nothing is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure(options: Options, handler_us: float, where: Places, progress: Progress) -> Result:
    schedule = [(turn, mode) for turn in range(1, options.repeat + 1) for mode in options.modes]
    # The sender is stopped when the last phase ends, and ends by itself when the server does.
    longest_s = 3600.0 + 2.0 * options.seconds * len(schedule)
    with Server(options, options.modes[0], handler_us, where.server) as server:
        _check_modes(options, server.ready)
        result = Result(
            options=options,
            python=str(server.ready["python"]),
            handler_us=handler_us,
            handler_us_measured=float(server.ready["handler_us"]),
            handler_picked=options.handler_us is None,
            where=where,
            main_tid=int(server.ready["main_tid"]),
        )
        sampler = Sampler(server.pid, min(INTERVAL_S, options.seconds / 5))
        result.raw_samples = sampler.samples
        sampler.take()
        port = int(server.ready["port"])
        with Sender(options, port, longest_s, where.others) as sender:
            started = read_ticks((server.pid, sender.pid))
            try:
                for at, (turn, mode) in enumerate(schedule):
                    progress(at / len(schedule), f"round {turn} of {options.repeat}: {mode}")
                    _phase(result, server, sender, sampler, turn, mode)
            except KeyboardInterrupt:
                result.interrupted = True
            progress(1.0, "delivering the rest")
            ended = read_ticks((server.pid, sender.pid))
            result.background_cpu_percent = started.background_percent(ended)
            done = sender.finish()
            stopped = server.stop()
    result.sent = int(done["sent"])
    result.sent_late_p99_us = float(done.get("sent_late_p99_us", 0.0))
    result.stats = stopped["stats"]
    result.states = stopped.get("states", {})
    if result.phases:
        result.phases[-1].after = result.stats
    return result


def _phase(
    result: Result, server: Server, sender: Sender, sampler: Sampler, turn: int, mode: str
) -> None:
    """Switch the mode on, let it settle, and measure the rest of its time."""

    def both_alive() -> None:
        for process in (server, sender):
            if not process.alive():
                raise process.death()

    options = result.options
    switched = server.switch(mode)
    before: Message = switched["stats"] if result.phases else {}
    if result.phases:
        result.phases[-1].after = switched["stats"]
    phase = Phase(turn, mode, int(switched["monotonic_ns"]), before, switched["stats"])
    result.phases.append(phase)
    sampler.take()
    sampler.watch(options.settling_s, both_alive)
    # The same mode once more: what is measured starts here, with a latency of its own.
    begun = server.switch(mode)
    phase.after = begun["stats"]
    first = sampler.take()
    try:
        sampler.watch(options.seconds - options.settling_s, both_alive)
    finally:
        phase.usage = usage(sampler.samples[first:], result.main_tid)
    running = server.stats()
    phase.after, phase.latency = running["stats"], running["latency"]
    if options.main_busy:
        done = running["stats"].get("own_work", 0) - begun["stats"].get("own_work", 0)
        phase.own_work_per_s = 1e9 * done / (running["monotonic_ns"] - begun["monotonic_ns"])


def _check_modes(options: Options, ready: Message) -> None:
    unknown: Sequence[str] = [
        mode for mode in options.modes if mode not in ready.get("modes", options.modes)
    ]
    reasons: dict[str, str] = ready.get("impossible", {})
    for mode in unknown:
        if mode in reasons:
            raise LabMissing(f"mode {mode} cannot run: {reasons[mode]}")
    if unknown:
        raise LabMissing(
            f"the server does not know {', '.join(unknown)}: "
            "its moored is another version; install the same on both interpreters"
        )
