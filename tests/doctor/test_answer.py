"""The terminal's answer: the verdict first, no cut figure, colour where it is wanted."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from doctor_recordings import CHURN, FEED, churning, healthy, large, site, thread, with_counts

from moored.doctor import answer, names, words
from moored.doctor.answer import Look
from moored.doctor.recording import Counts, Frame, Recording


def first_line(recording: Recording) -> str:
    return answer.answer(recording).splitlines()[0]


def test_the_verdict_names_figure_time_share_and_origin() -> None:
    assert first_line(churning()) == (
        "43,120 temporary thread states in 12.4 s: 0.61 s, 4.9 % of the process's CPU; "
        "100 % from libgstbase through _ctypes in thread 'gst-src'."
    )


def test_the_verdict_says_how_much_comes_from_the_first_module() -> None:
    small = Counts(calls=900, temporary_states=900, attach_ns=19_000_000)
    two = replace(
        churning(), sites=(site(1, CHURN), site(2, small, frames=FEED, binding="pybind11"))
    )
    assert "97 % from libgstbase through _ctypes" in first_line(two)
    other_way = replace(
        two, sites=(site(1, small), site(2, CHURN, frames=FEED, binding="pybind11"))
    )
    assert first_line(other_way).endswith("97 % from feed through pybind11.")


def test_the_verdict_of_a_busy_main() -> None:
    counts = Counts(calls=5_000, attach_ns=31 * 10**8, wait_ns=3 * 10**9)
    waiting = with_counts(replace(counts, wait_for_main_ns=3 * 10**9, longest_wait_ns=7_000_000))
    assert first_line(waiting) == (
        "3.00 s of waiting for the GIL behind main in 12.4 s, up to 7.00 ms at a time; "
        "100 % from libgstbase through _ctypes in thread 'gst-src'."
    )


def test_the_verdict_of_a_healthy_process() -> None:
    assert first_line(healthy()) == (
        "Nothing to mend: 50,000 calls from native threads in 12.4 s, "
        "0 temporary thread states, 500 us of waiting for the GIL."
    )


def test_the_verdict_without_native_threads() -> None:
    assert first_line(healthy(sites=(), threads=())) == "No native thread entered Python in 12.4 s."


def test_the_verdict_of_what_costs_no_time() -> None:
    line = first_line(healthy(late_attaches=2))
    assert line == "2 attaches came after Python had begun to end in 12.4 s."


def test_what_the_recording_cost_is_said() -> None:
    last = answer.answer(churning(records_lost=3)).splitlines()[-1]
    assert last == (
        "Recording took 1.55 ms, <0.1 % of the CPU: 43,120 calls at 36 ns each. "
        "3 records did not fit and are not counted."
    )


def test_a_remedy_stands_alone_on_its_line() -> None:
    for look in (Look(), Look(40), Look(10)):
        shown = answer.answer(churning(), look).splitlines()
        assert "   -> moored run app.py --port 80" in shown


FIGURE = re.compile(r"\d[\d,.]*(?: (?:ns|us|ms|s|%))?")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_no_figure_is_cut_by_the_width(width: int) -> None:
    whole = answer.answer(large(40, 30))
    narrow = answer.answer(large(40, 30), Look(width))
    lines = narrow.splitlines()
    for figure in {"4.", "36 ns"} | set(re.findall(r"\d[\d,.]* (?:ns|us|ms)", whole)):
        assert figure in narrow or figure not in whole, figure
    headings = ("longest", "a call", "temporary")
    assert all(any(heading in line for line in lines) for heading in headings)


def test_a_wide_terminal_and_a_pipe_show_the_same_rows() -> None:
    assert set(FIGURE.findall(answer.answer(churning(), Look(300)))) == set(
        FIGURE.findall(answer.answer(churning()))
    )


def test_what_is_left_out_of_a_table_is_said() -> None:
    shown = answer.answer(large())
    assert "and 4,985 more" in shown
    assert "and 1,985 more" in shown
    assert len(shown.splitlines()) < 80


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert answer.look_of(Terminal()).in_colour
    assert answer.look_of(io.StringIO()) == Look(None, False)
    assert "\x1b[" in answer.answer(churning(), answer.look_of(Terminal()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in answer.answer(churning(), answer.look_of(Terminal()))
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not answer.look_of(Terminal()).in_colour


def test_recorded_text_does_not_steer_the_terminal() -> None:
    bad = "\x1b[31mred\n\x07"
    evil = replace(
        churning(),
        command=bad,
        python=bad,
        sites=(site(1, CHURN, binding=bad, frames=(Frame(bad, bad),)),),
        threads=(thread(7, bad, CHURN),),
    )
    shown = answer.answer(evil)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\nred" not in shown


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (999.6, "1.00 us"),
        (1_000, "1.00 us"),
        (15_340, "15.3 us"),
        (999_900, "1.00 ms"),
        (99_000_000, "99.0 ms"),
        (610_000_000, "0.61 s"),
        (1_234_567_890, "1.23 s"),
        (4_321e9, "4,321 s"),
    ],
)
def test_times(ns: float, text: str) -> None:
    assert words.time(ns) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0001, "<0.1 %"), (0.049, "4.9 %"), (0.0999, "10 %"), (0.97, "97 %")],
)
def test_shares(share: float, text: str) -> None:
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("module", "short"),
    [
        ("/usr/lib/x86_64-linux-gnu/libgstbase-1.0.so.0", "libgstbase"),
        ("/a/_ctypes.cpython-311-x86_64-linux-gnu.so", "_ctypes"),
        ("/a/module.abi3.so", "module"),
        (
            "numpy.libs/libopenblas64_p-r0-0cf96a72.3.23.dev.so",
            "libopenblas64_p-r0-0cf96a72.3.23.dev",
        ),
        ("libavcodec-8f3b2c1d.so.58.1", "libavcodec"),
        ("/usr/bin/python3.11", "python3.11"),
        ("libpython3.13t.so.1.0", "libpython3.13t"),
        ("", "?"),
    ],
)
def test_short_names_of_modules(module: str, short: str) -> None:
    assert names.short_module(module) == short


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        (["_ctypes.so", "libffi.so.8", "libasound.so.2"], "libasound"),
        (["_cffi_backend.abi3.so", "_wrapper.so", "libcurl.so.4"], "_wrapper"),
        (["_gi.so", "libffi.so.8", "libgio-2.0.so.0"], "libgio"),
        (["libshiboken6.abi3.so.6.7", "libQt6Core.so.6"], "libQt6Core"),
        (["sip.cpython-311.so", "QtCore.abi3.so"], "QtCore"),
        (["libboost_python311.so.1.74", "libfeed.so"], "libfeed"),
        (["libpython3.13.so.1.0", "libfeed.so"], "libfeed"),
        (["/usr/bin/python3.12", "libfeed.so"], "libfeed"),
        (["_ctypes.so"], "_ctypes"),
        (["siphon.so"], "siphon"),
    ],
)
def test_a_site_is_named_by_what_is_behind_the_binding(modules: list[str], named: str) -> None:
    frames = tuple(Frame(module, "f") for module in modules)
    assert names.module_name(site(frames=frames)) == named


@pytest.mark.parametrize(
    "inner",
    ["pybind11::gil_scoped_acquire()", "void nanobind::detail::f<int>()", "<pyo3::Python>::attach"],
)
def test_a_site_is_named_within_its_module_past_the_binding(inner: str) -> None:
    frames = (Frame("feed.so", inner), Frame("feed.so", "feed::run()"))
    assert names.site_name(site(frames=frames)) == "feed!feed::run()"


def test_sites_of_a_stripped_binding_are_named_by_their_callers() -> None:
    entry, one, other = (Frame("feed.so", "", offset) for offset in (0x10, 0x20, 0x30))
    main = Frame("libc.so.6", "main")
    stacks = [(entry, one, main), (entry, other, main), (other, one, main), (entry,), ()]
    sites = names.told_apart([site(key, frames=frames) for key, frames in enumerate(stacks)])
    assert [names.site_name(one) for one in sites] == [
        *("feed!0x20", "feed!0x30"),  # both through 0x10
        *("feed!0x30", "feed!0x10", "?!0x0"),
    ]


def test_a_function_with_a_name_or_one_caller_names_its_sites() -> None:
    named, nameless, caller = Frame("a.so", "f"), Frame("b.so", "", 1), Frame("b.so", "", 2)
    stacks = [(named, caller), (named, nameless), (nameless, caller, named), (nameless, caller)]
    sites = names.told_apart([site(key, frames=frames) for key, frames in enumerate(stacks)])
    assert [names.site_name(one) for one in sites] == ["a!f", "a!f", "b!0x1", "b!0x1"]


def test_a_frame_without_a_symbol_is_named_by_its_offset() -> None:
    assert names.site_name(site(frames=(Frame("/a/libfeed.so", "", 0x1234),))) == "libfeed!0x1234"
    assert names.site_name(site(frames=())) == "?!0x0"


@pytest.mark.parametrize(
    ("symbol", "short"),
    [
        ("f", "f"),
        ("feed::run(int, long)", "feed::run(int, long)"),
        (
            "feed::run(std::vector<int, std::allocator<int> > const&, unsigned long)",
            "feed::run(...)",
        ),
        ("std::function<void (int, int, int, int)>::operator()", "std::function<...>::operator()"),
        ("<feed::Reader as core::ops::Drop>::drop", "<feed::Reader as core::ops::Drop>::drop"),
        ("bool operator< (A, B)", "bool operator< (A, B)"),
        ("unbalanced<<<", "unbalanced<<<"),
    ],
)
def test_long_lists_in_a_name_are_left_out_of_tables(symbol: str, short: str) -> None:
    assert names.short_symbol(symbol) == short
    whole = site(frames=(Frame("feed.so", symbol),))
    assert names.site_name(whole) == f"feed!{symbol}"


def test_a_finding_names_its_sites() -> None:
    assert "\n   At libgstbase!gst_base_src_loop.\n" in answer.answer(churning())
    share = Counts(calls=900, temporary_states=900, attach_ns=90_000_000)
    many = tuple(site(at, share, frames=(Frame(f"lib{'abcdef'[at]}.so", "f"),)) for at in range(6))
    assert "At liba!f, libb!f, libc!f and 3 more." in answer.answer(churning(sites=many))


def test_a_table_that_is_too_wide_has_its_names_below_the_rows() -> None:
    lines = answer.answer(churning(), Look(90)).splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("Sites"))
    assert lines[at + 1].split()[:3] == ["cost", "CPU", "calls"]
    assert lines[at + 2].endswith("_ctypes")
    assert lines[at + 3] == "    libgstbase!gst_base_src_loop"
