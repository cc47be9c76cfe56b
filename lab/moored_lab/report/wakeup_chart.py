"""Wakeup chart: the picture of `moored lab wakeup`, drawn from its JSON object alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from moored_lab.report.chart import ACCENT, INK, MAIN, OTHERS, OTHERS_INK, QUIET, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
Row = Mapping[str, Any]


NAME_WIDTH, FIGURE_WIDTH = 0.066, 0.045
"""What a mode's name and a figure take of the picture's width, at their font sizes."""


@dataclass(frozen=True)
class Span:
    """One mode's time in the picture, and its row."""

    mode: str
    start: float
    end: float
    row: Row

    @property
    def middle(self) -> float:
        """Where its name and its marks stand."""
        return (self.start + self.end) / 2


@dataclass(frozen=True)
class Steps:
    """CPU over time as steps: one more edge than values."""

    edges: list[float]
    main: list[float]
    process: list[float]


def draw(document: Document) -> Figure:
    """Draw the typical round: CPU over time above, latency of each mode below."""
    shown = typical_round(document)
    steps = steps_of(document, shown)
    spans = spans_of(document, shown, steps.edges[-1])
    with look():
        figure = new_figure(12, 6)
        cpu, latency = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": (2.0, 1.0), "hspace": 0.09}
        )
        figure.subplots_adjust(left=0.065, right=0.94, top=0.815, bottom=0.085)
        _draw_cpu(cpu, steps, spans, document.get("reference"))
        _draw_latency(latency, spans)
        _draw_switches((cpu, latency), spans)
        latency.set_xlim(steps.edges[0], steps.edges[-1])
        _write_heading(figure, document, shown)
    return figure


def typical_round(document: Document) -> int:
    """Return the round that is nearest to the medians of all rounds."""
    middle = {row["mode"]: row["process_cpu_percent"] for row in document["rows"]}
    complete = {switch["round"] for switch in document["switches"]}
    if document.get("interrupted") and len(complete) > 1:
        complete.remove(max(complete))
    distance: dict[int, float] = dict.fromkeys(complete, 0.0)
    for sample in document["samples"]:
        expected = middle.get(sample["mode"])
        if sample["round"] in distance and expected is not None:
            used = sample["main_cpu_percent"] + sample["others_cpu_percent"]
            length = sample["to_s"] - sample["from_s"]
            distance[sample["round"]] += length * abs(used - expected)
    return min(distance, key=lambda turn: (distance[turn], turn))


def steps_of(document: Document, shown: int) -> Steps:
    """Return the samples of one round as steps, its start at 0.

    Samples taken right after each other are joined: over a millisecond the kernel's clock
    of a running thread is too coarse to be a percentage. No step reaches over a switch.
    """
    samples = [sample for sample in document["samples"] if sample["round"] == shown]
    lengths = sorted(sample["to_s"] - sample["from_s"] for sample in samples)
    shortest = 0.5 * lengths[len(lengths) // 2]
    zero = samples[0]["from_s"]
    steps = Steps([0.0], [], [])
    for _, group in groupby(samples, key=lambda sample: sample["mode"]):
        for piece in _long_enough(list(group), shortest):
            length = sum(sample["to_s"] - sample["from_s"] for sample in piece)
            main, others = (
                sum((sample["to_s"] - sample["from_s"]) * sample[key] for sample in piece) / length
                for key in ("main_cpu_percent", "others_cpu_percent")
            )
            steps.edges.append(piece[-1]["to_s"] - zero)
            steps.main.append(main)
            steps.process.append(main + others)
    return steps


def _long_enough(samples: Sequence[Row], shortest: float) -> list[list[Row]]:
    """Cut the samples of one mode into pieces, none too short; a short rest joins the last."""
    pieces: list[list[Row]] = []
    for sample in samples:
        if not pieces or pieces[-1][-1]["to_s"] - pieces[-1][0]["from_s"] >= shortest:
            pieces.append([])
        pieces[-1].append(sample)
    last = pieces[-1]
    if len(pieces) > 1 and last[-1]["to_s"] - last[0]["from_s"] < shortest:
        pieces[-2:] = [pieces[-2] + last]
    return pieces


def spans_of(document: Document, shown: int, end: float) -> list[Span]:
    """Return when each mode of the round ran, on the clock of its steps."""
    rows = {row["mode"]: row for row in document["rows"]}
    zero = next(s["from_s"] for s in document["samples"] if s["round"] == shown)
    switches = [switch for switch in document["switches"] if switch["round"] == shown]
    starts = [max(0.0, switch["at_s"] - zero) for switch in switches]
    return [
        Span(switch["mode"], start, stop, rows[switch["mode"]])
        for switch, start, stop in zip(switches, starts, [*starts[1:], end], strict=True)
    ]


def _draw_cpu(axes: Axes, steps: Steps, spans: Sequence[Span], reference: str | None) -> None:
    axes.stairs(steps.process, steps.edges, baseline=steps.main, fill=True, color=OTHERS, lw=0)
    axes.stairs(steps.main, steps.edges, fill=True, color=MAIN, lw=0)
    top = 1.16 * max(steps.process)
    axes.set_ylim(0, top)
    axes.set_ylabel("CPU, % of one core")
    axes.tick_params(axis="x", length=0)
    names = apart([span.middle for span in spans], steps.edges[-1])
    for span, place in zip(spans, names, strict=True):
        axes.text(
            place, 1.03, _in_two_lines(span.mode), transform=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=9.5, linespacing=1.05,
            fontweight="bold" if span.mode == reference else "normal",
        )  # fmt: skip
        if abs(place - span.middle) > 0.01 * steps.edges[-1]:
            axes.plot(
                (span.middle, place), (1.0, 1.025), transform=axes.get_xaxis_transform(),
                color=QUIET, lw=0.6, clip_on=False,
            )  # fmt: skip
        _write_median(axes, span, steps, top)
    base = next((span for span in spans if span.mode == reference), None)
    if base and base.row["process_cpu_percent"] is not None:
        level = base.row["process_cpu_percent"]
        axes.axhline(level, color=ACCENT, lw=0.9, ls=(0, (5, 3)), zorder=3)
        _label_right(axes, level, base.mode, ACCENT)
    last_main, last_process = steps.main[-1], steps.process[-1]
    _write_right_labels(axes, base, last_main, last_process, top)


def _write_median(axes: Axes, span: Span, steps: Steps, top: float) -> None:
    """Write the mode's median over the steps that are under it, where nothing covers it."""
    value = span.row["process_cpu_percent"]
    if value is None or not has_room(span, steps.edges[-1]):
        return
    reach = 0.3 * (span.end - span.start)
    pieces = zip(steps.edges, steps.edges[1:], steps.process, strict=False)
    under = [
        process
        for left, right, process in pieces
        if right > span.middle - reach and left < span.middle + reach
    ]
    axes.text(
        span.middle, max(under, default=value) + 0.015 * top, f"{value:.1f}",
        ha="center", va="bottom", fontsize=9, color=INK, zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
    )  # fmt: skip


def _write_right_labels(
    axes: Axes, base: Span | None, main: float, process: float, top: float
) -> None:
    """Name the two areas at the right edge, apart from each other and from the reference."""
    room = 0.075 * top
    taken = [base.row["process_cpu_percent"]] if base else []
    wanted = [(main / 2, "main", MAIN), ((main + process) / 2, "others", OTHERS_INK)]
    for level, text, color in wanted:
        while any(abs(level - other) < room for other in taken if other is not None):
            level += 0.2 * room if text != "main" else -0.2 * room
        taken.append(level)
        _label_right(axes, level, text, color)


def _label_right(axes: Axes, level: float, text: str, color: str) -> None:
    axes.text(
        1.008, level, text, transform=axes.get_yaxis_transform(),
        ha="left", va="center", fontsize=9, color=color, clip_on=False,
    )  # fmt: skip


def _draw_latency(axes: Axes, spans: Sequence[Span]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: time_text(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", which="major", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_ylabel("latency")
    axes.set_xlabel("seconds in this round", color=QUIET)
    measured = [span for span in spans if _positive(span.row)]
    for span in measured:
        p50, p99 = span.row["latency_p50_us"], span.row["latency_p99_us"]
        axes.plot([span.middle] * 2, [p50, p99], color=OTHERS, lw=2.2, zorder=2)
        axes.plot(span.middle, p50, "o", ms=5.5, color=MAIN, zorder=3)
        axes.plot(span.middle, p99, "o", ms=5.5, mfc="white", mec=MAIN, mew=1.2, zorder=3)
        for value, side in ((p50, -1), (p99, 1)) if has_room(span, spans[-1].end) else ():
            axes.annotate(
                time_text(value), (span.middle, value), xytext=(0, 6 * side),
                textcoords="offset points", ha="center", fontsize=8,
                va="bottom" if side > 0 else "top",
            )  # fmt: skip
    if not measured:
        return
    values = [span.row[key] for span in measured for key in ("latency_p50_us", "latency_p99_us")]
    # Room for the figures: a quarter of the height each, whatever the number of decades.
    room = (max(values) / min(values)) ** 0.4
    axes.set_ylim(min(values) / room, max(values) * room)
    last = measured[-1].row
    low, high = last["latency_p50_us"], last["latency_p99_us"]
    # On a log axis the same distance is the same factor: keep the two names a line apart.
    bottom, top = axes.get_ylim()
    line = (top / bottom) ** (0.13 / 2)
    middle = (low * high) ** 0.5
    _label_right(axes, min(low, middle / line), "median", INK)
    _label_right(axes, max(high, middle * line), "p99", INK)


def _draw_switches(both: Sequence[Axes], spans: Sequence[Span]) -> None:
    for axes in both:
        for span in spans:
            axes.axvline(span.start, color="#555555", lw=0.6, zorder=4)


def _write_heading(figure: Figure, document: Document, shown: int) -> None:
    rounds = max((row["rounds"] for row in document["rows"]), default=1)
    which = f"Round {shown} of {rounds}; figures are medians of all rounds. " if rounds > 1 else ""
    figure.text(
        0.065, 0.955, "One server, one load: CPU and latency as the way into Python is switched",
        fontsize=13, fontweight="bold", va="center",
    )  # fmt: skip
    setup = list(document.get("setup", []))
    figure.text(
        0.065, 0.912, which + "; ".join(setup[:1]) + f"; handler {document['handler_us']:g} us",
        fontsize=9, color=QUIET, va="center",
    )  # fmt: skip


def apart(places: Sequence[float], width: float) -> list[float]:
    """Move names that would overlap to the right, and as far back as the right edge demands.

    Phases are equally long as a rule; a server that is slow to answer makes them differ.
    """
    gap = NAME_WIDTH * width
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    limit = max(places, default=0.0)
    for at in reversed(range(len(moved))):
        moved[at] = min(moved[at], limit)
        limit = moved[at] - gap
    return moved


def has_room(span: Span, width: float) -> bool:
    """Tell whether a figure fits between the span's lines; the table has it in any case."""
    return span.end - span.start >= FIGURE_WIDTH * width


def time_text(us: float) -> str:
    """Return a time in the unit in which it is short."""
    if us >= 1e6:
        return f"{us / 1e6:.3g} s"
    return f"{us / 1e3:.3g} ms" if us >= 1e3 else f"{us:.3g} us"


def _positive(row: Row) -> bool:
    low, high = row["latency_p50_us"], row["latency_p99_us"]
    return low is not None and high is not None and low > 0 and high > 0


def _in_two_lines(mode: str) -> str:
    return mode.replace("-", "-\n")
