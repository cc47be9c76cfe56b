"""Cases: what one torture process does, drawn from a seed; the same seed draws the same case."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

KINDS = (
    "attach",
    "temporary",
    "shared",
    "keep",
    "nest",
    "call",
    "send",
    "visit",
    "revisit",
    "drop",
    "ctypes",
    "pybind11",
    "nanobind",
    "overstay",
)
BINDINGS = ("ctypes", "pybind11", "nanobind")
ENDINGS = (
    "return",
    "return",  # twice: it is how programs end
    "sys.exit",
    "exception",
    "atexit",
    "first call in atexit",
    "thread exits",
    "SIGINT",
    "SIGTERM",
    "os._exit",
    "embedded",
    "embedded",
)
INTERLUDES = (
    "join",
    "join with the GIL",
    "keep and join",
    "keep and join with the GIL",
    "join in a forked child",
    "plugin",
)
"""What main does before the end: with threads and libraries that know nothing of the rest."""
FORKS = ("none", "none", "none", "main", "main and exec", "native thread", "native and exec")
SUBINTERPRETERS = ("none", "none", "shared GIL", "own GIL")
DELIVERIES = ("poll", "wake", "enter", "interrupt", "adaptive")
OVERFLOWS = ("block", "reject", "drop_oldest", "drop_newest")
EXIT_CODE = 7


@dataclass(frozen=True)
class Worker:
    """Some native threads that do the same."""

    kind: str
    threads: int
    calls: int
    """Each thread's; 0: until attaching is refused."""
    joined: bool
    comes_back: bool
    """Tries on after it was refused, for as long as the process lives."""
    farewell: str
    """A thread_local of its user's that attaches when the thread ends: none, first or last."""


@dataclass(frozen=True)
class Case:
    """One process."""

    seed: int
    workers: tuple[Worker, ...]
    ending: str
    begun: int
    """So many attaches and sends are awaited before the end begins; 0: none."""
    work: str
    """What a native thread's call does in Python."""
    fork: str
    subinterpreter: str
    delivery: str
    overflow: str
    capacity: int
    bound_ms: int
    lives: int
    """Of the interpreter: an embedding program may start it again."""
    interludes: tuple[str, ...]
    consumers: int
    """Event loops, each on a thread of its own, that share the channel until the end begins."""
    tracemalloc: bool
    launcher: bool
    """It is run by `moored run`."""
    urgent: bool
    """Native threads, channels that enter and `moored run` ask for the GIL at once."""

    def words(self) -> str:
        """Say it in one line."""
        said = [f"{worker.threads} x {_worker_words(worker)}" for worker in self.workers]
        said.append(
            f"end: {self.ending}{f' after {self.begun} attaches or sends' if self.begun else ''}"
        )
        if self.fork != "none":
            said.append(f"fork: {self.fork}")
        if self.subinterpreter != "none":
            said.append(f"subinterpreter: {self.subinterpreter}")
        if self.has_channel():
            loops = f", {self.consumers} loops" if self.consumers else ""
            said.append(f"channel: {self.delivery}, {self.overflow}, {self.capacity}{loops}")
        said.extend(self.interludes)
        if self.tracemalloc:
            said.append("tracemalloc")
        if self.launcher:
            said.append("moored run")
        if self.urgent:
            said.append("urgent")
        if self.lives > 1:
            said.append(f"{self.lives} lives")
        return "; ".join(said)

    def as_json(self) -> str:
        """Give what the case's process is told."""
        return json.dumps(asdict(self))

    def has(self, kind: str) -> bool:
        """Tell whether some threads do this."""
        return any(worker.kind == kind for worker in self.workers)

    def has_channel(self) -> bool:
        """Tell whether some threads need one."""
        return self.has("send") or self.has("drop")


def draw(
    seed: int, minor: int, gil: bool, bindings: Sequence[str], embeds: bool, launches: bool
) -> Case:
    """Draw a case that CPython 3.<minor> can run, with these bindings."""
    dice = random.Random(seed)
    ending = dice.choice([one for one in ENDINGS if embeds or one != "embedded"])
    embedded = ending == "embedded"
    fork = dice.choice(FORKS)
    interpreters = dice.choice(SUBINTERPRETERS)
    delivery = dice.choice(DELIVERIES)
    overflow = dice.choice(OVERFLOWS)
    if minor < 12 or not gil:
        # CPython's own: if a native thread was making or deleting its state in the moment of the
        # fork, the child waits for ever for the lock of the list of states, or, without a GIL,
        # crashes on the state that is half made.
        fork = "none"
    if fork.startswith("native"):
        # CPython's own, too: for a lock of the subinterpreter.
        interpreters = "none"
    lives = dice.choice((1, 2, 3)) if embedded else 1
    kinds = [kind for kind in KINDS if kind not in BINDINGS or kind in bindings]
    if lives > 1:
        # These hold Python objects that would be used in the next life.
        kinds = [kind for kind in kinds if kind not in (*BINDINGS, "call", "drop")]
    workers = tuple(_draw_worker(dice, kinds) for _ in range(dice.choice((1, 1, 2, 3))))
    interludes = tuple(dice.sample(INTERLUDES, dice.choice((0, 0, 1, 2))))
    if fork == "none" and (minor < 12 or not gil):  # as above
        interludes = tuple(one for one in interludes if "fork" not in one)
    consumers = dice.choice((0, 0, 1, 3))
    subinterpreter = interpreters if minor >= 12 or interpreters != "own GIL" else "none"
    # With tracemalloc on CPython itself waits in Py_NewInterpreter for the GIL that it holds, up to
    # 3.11, and crashes at the end of an interpreter with a GIL of its own from 3.12 on.
    may_trace = subinterpreter == "none" or (subinterpreter == "shared GIL" and minor >= 12)
    traces = dice.random() < 0.2 and may_trace and lives == 1  # it bears no second life
    if (
        ending == "first call in atexit"
    ):  # from 3.12 on Python starts no thread and no process there
        fork, consumers = "none", 0
        interludes = tuple(one for one in interludes if "fork" not in one)
    case = Case(
        seed=seed,
        workers=workers,
        ending=ending,
        begun=dice.choice((0, 0, 1, 50, 500)),
        work=_but_for_forks(dice.choice(("nothing", "little", "much", "waits")), fork),
        fork=fork,
        subinterpreter=subinterpreter,
        delivery=delivery if minor >= 13 or delivery != "interrupt" else "wake",
        overflow=overflow,
        capacity=dice.choice((1, 16, 1024)),
        bound_ms=30_000,
        lives=lives,
        interludes=interludes,
        consumers=consumers if not embedded else 0,
        tracemalloc=traces,
        launcher=launches and not embedded and dice.random() < 0.3,
        # Dice of its own: the rest of a seed's case is as it was before there was this.
        urgent=gil and random.Random(f"urgent {seed}").random() < 0.4,
    )
    if not case.has_channel() or case.delivery not in ("wake", "enter", "adaptive"):
        case = replace(case, consumers=0)
    if case.has("overstay") or ending == "first call in atexit":
        # Native threads are to be inside when Python goes on to end.
        if minor < 14:
            # CPython unwinds a thread that comes too late, which other code's destructors do not
            # survive: neither a thread_local's nor those of pybind11 and nanobind.
            workers = tuple(
                replace(worker, farewell="none", kind=_but_for(worker.kind, "ctypes"))
                for worker in workers
            )
        # CPython ends the process, if a native thread is late in a subinterpreter that ends.
        case = replace(case, workers=workers, subinterpreter="none")
    if case.has("overstay"):
        return replace(case, bound_ms=dice.choice((1, 50)))
    return case


def _draw_worker(dice: random.Random, kinds: Sequence[str]) -> Worker:
    kind = dice.choice(kinds)
    threads = dice.choice((1, 1, 2, 4, 8, dice.randint(1, 64)))
    if kind == "overstay":
        return Worker(kind, min(threads, 4), 1, joined=False, comes_back=False, farewell="none")
    calls = dice.choice((0, 0, 1, 3, 100))
    joined = dice.random() < 0.5
    # A thread that may wait in send() for a consumer that is gone is woken by the channel's end.
    comes_back = dice.random() < 0.2 and not (joined and calls == 0)
    return Worker(kind, threads, calls, joined, comes_back, dice.choice(("none", "first", "last")))


def _but_for_forks(work: str, fork: str) -> str:
    # CPython's own: the child drops what current_thread() has left in the thread-locals of others,
    # which waits for a lock of threading's that another thread may have held in the fork.
    return "nothing" if work == "little" and fork != "none" else work


def _but_for(kind: str, plain: str) -> str:
    return plain if kind in BINDINGS else kind


def _worker_words(worker: Worker) -> str:
    words = [worker.kind, f"{worker.calls} times" if worker.calls else "until refused"]
    words.append("joined" if worker.joined else "detached")
    if worker.comes_back:
        words.append("coming back")
    if worker.farewell != "none":
        words.append(f"farewell {worker.farewell}")
    return " ".join(words)
