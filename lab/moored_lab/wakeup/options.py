"""Options: what a run of the ThreadWakeup experiment is made of, and what it may be."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from moored_lab import _server

MODES = tuple(_server.modes())
"""Every mode of the server, in the order in which the experiment visits them."""

USUAL_MODES = (
    *(mode for mode in MODES if not mode.startswith("channel-") and not mode.endswith("-urgent")),
    *("channel-enter", "channel-adaptive", "channel-asyncio"),
)
"""What a run visits unless told otherwise: what every interpreter has, in a few minutes."""

BUSY_MODES = (
    *("null", "poll15", "temporary", "kept", "kept-urgent", "enter", "enter-urgent"),
    *("channel-wake", "channel-enter"),
    *(("channel-interrupt",) if sys.version_info >= (3, 13) else ()),
    *("channel-adaptive", "channel-asyncio"),
)
"""The same when main is busy with work of its own (--main-busy)."""

BUSY_RATE, BUSY_HANDLER_US = 1_000.0, 20.0
"""And what leaves a main that is busy for most of its time something to give."""

POLLS = ("poll15", "poll5", "poll1")
"""The modes that can be the reference, the preferred one first."""

TARGET_MAIN_PERCENT = 40.0
"""How much of main the IO shall load in the reference mode when no handler time is given."""


LARGEST_SEED = 2**64 - 1
"""The load sender takes no larger one."""


class BadOption(ValueError):
    """An option cannot be used; the message says which, why and what can."""


@dataclass(frozen=True)
class Options:
    """One run: `repeat` rounds over `modes`, each for `seconds`, at one steady rate."""

    modes: tuple[str, ...] = USUAL_MODES
    rate: float = 10_000.0
    """Events per second, over all connections."""
    seconds: float = 2.0
    """How long each mode runs in each round."""
    threads: int = 1
    """The server's IO threads."""
    handler_us: float | None = None
    """The Python handler's work; None picks it so that main is loaded to the target."""
    main_busy: float = 0.0
    """The share of its time, in percent, that main spends on Python work of its own."""
    repeat: int = 3
    connections: int = 4
    seed: int = 1
    python: str = sys.executable
    """The interpreter that runs the server."""
    pin: bool = True
    """Keep the server and the sender on different CPUs where there are two or more."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables for the server alone."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, before anything is started."""
        object.__setattr__(self, "modes", tuple(self.modes))
        check_modes(self.modes)
        _check("--rate", self.rate, 0.0, 10_000_000.0, "events per second")
        _check("--seconds", self.seconds, 0.0, 3_600.0, "seconds for each mode")
        _check("--threads", self.threads, 0, 256, "IO threads")
        _check("--repeat", self.repeat, 0, 1_000, "rounds")
        _check("--connections", self.connections, 0, 1_000, "connections")
        if self.handler_us is not None and not 0.0 <= self.handler_us <= 1e6:
            raise BadOption(
                f"--handler-us {self.handler_us:g} is not possible: give 0 to 1000000 microseconds"
            )
        if not 0.0 <= self.main_busy <= 90.0:
            raise BadOption(f"--main-busy {self.main_busy:g} is not possible: give 0 to 90 percent")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise BadOption(f"--seed {self.seed} is not possible: give 0 to {LARGEST_SEED}")
        if shutil.which(self.python) is None:
            raise BadOption(
                f"--python {self.python}: there is no such program; name an interpreter"
            )

    @property
    def reference(self) -> str | None:
        """The poll mode that the others are compared with; None if no poll mode runs."""
        return next((mode for mode in POLLS if mode in self.modes), None)

    @property
    def queue(self) -> int:
        """How many events may wait: one second of them or 10,000; the rest is lost and counted.

        A longer queue would hide that a mode does not keep up, and spoil the mode after it.
        """
        return max(10_000, round(self.rate))

    @property
    def settling_s(self) -> float:
        """The first part of each phase, which belongs to the switch and not to the mode."""
        return min(0.3, 0.2 * self.seconds)


def check_modes(modes: Sequence[str]) -> None:
    """Refuse an empty list, an unknown mode and one that is named twice."""
    if not modes:
        raise BadOption(f"--modes is empty: name one or more of {', '.join(MODES)}")
    for mode in modes:
        if mode not in MODES:
            near = get_close_matches(mode, MODES, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise BadOption(f"unknown mode '{mode}': {hint}the modes are {', '.join(MODES)}")
    twice = sorted({mode for mode in modes if modes.count(mode) > 1})
    if twice:
        raise BadOption(f"--modes names {', '.join(twice)} twice: --repeat measures it again")


def modes_in(text: str) -> tuple[str, ...]:
    """Read a list of modes as the command line gives it: with commas or spaces."""
    return tuple(text.replace(",", " ").split())


def _check(name: str, value: float, above: float, most: float, unit: str) -> None:
    if not math.isfinite(value) or not above < value <= most:
        raise BadOption(
            f"{name} {value:g} is not possible: give more than {above:g} "
            f"and at most {most:,.0f} {unit}"
        )
