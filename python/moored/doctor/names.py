"""Names: what a site, a frame and a thread are called in every report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .recording import Frame, Recording, Site, Thread
from .words import printable

BETWEEN = (
    "_ctypes",
    "_cffi_backend",
    "_gi",
    "libffi",
    "libshiboken",
    "sip",
    "libboost_python",
    "libpython",
)
"""Modules between the library that calls back and Python: they name no caller."""

INSIDE = ("pyo3", "pybind11", "nanobind")
"""Bindings that are linked into the module: their functions name no caller either."""

MOST_PLACES = 3
"""Sites that a finding names."""

LONG_LIST = 24
"""A list in brackets with more signs is shortened in a table."""

_INTERPRETER = re.compile(r"python(\d(\.\d+)?)?[a-z]*\Z")
_ENDING = re.compile(r"(\.(cpython|abi|pypy)[\w-]*)*(\.so[\d.]*|\.pyd|\.dylib)\Z")
_VERSION = re.compile(r"-(\d[\d.]*|[0-9a-f]{8})\Z")


def short_module(module: str) -> str:
    """Return a module's name without folder, version and ending: `libgstbase`."""
    name = _ENDING.sub("", module.rpartition("/")[2])
    return _VERSION.sub("", name) or module or "?"


def is_between(module: str) -> bool:
    """Tell whether a module is only a way from the caller into Python."""
    name = short_module(module)
    if _INTERPRETER.match(name):
        return True
    return any(name == one or (one.startswith("lib") and name.startswith(one)) for one in BETWEEN)


def _is_inside(symbol: str) -> bool:
    """Tell whether a function is a binding's own, in the module that it is linked into."""
    return re.match(rf"[<&(]*(?:\w+ )?(?:{'|'.join(INSIDE)})::", symbol) is not None


def caller(site: Site) -> Frame:
    """Return the first frame behind the binding; the attach's own caller when there is none."""
    frames = site.frames[1:] if site.enters_by_frame else site.frames
    outside = [frame for frame in frames if not is_between(frame.module)]
    for frame in outside:
        if not _is_inside(frame.symbol):
            return frame
    return (outside or site.frames or (Frame("?"),))[0]


def told_apart(sites: Sequence[Site]) -> tuple[Site, ...]:
    """Have sites named by their callers where a binding in a stripped module makes them alike.

    There the function that attaches has no name to know it by, but several callers of its module.
    """
    callers: dict[Frame, set[Frame]] = {}
    for site in sites:
        if pair := _nameless_entry(site):
            callers.setdefault(pair[0], set()).add(pair[1])
    return tuple(
        replace(site, enters_by_frame=True)
        if (pair := _nameless_entry(site)) and len(callers[pair[0]]) > 1
        else site
        for site in sites
    )


def _nameless_entry(site: Site) -> tuple[Frame, Frame] | None:
    """Return the caller of the attach, and its caller, if they may be a binding's and a user's."""
    first, *behind = site.frames[:2] or (Frame("?"),)
    if first.symbol or not behind or behind[0].module != first.module or is_between(first.module):
        return None
    return first, behind[0]


def frame_name(frame: Frame) -> str:
    """Say a frame as a debugger would: module and function, or module and offset."""
    place = frame.symbol or f"{frame.offset:#x}"
    return printable(f"{short_module(frame.module)}!{place}")


def site_name(site: Site) -> str:
    """Name a site by its caller."""
    return frame_name(caller(site))


def short_site_name(site: Site) -> str:
    """Name a site by its caller, where a line has to do: without long lists in brackets."""
    frame = caller(site)
    return frame_name(replace(frame, symbol=short_symbol(frame.symbol)))


def short_symbol(symbol: str) -> str:
    """Return a C++ or Rust name with `...` for parameters and template arguments that are long."""
    open_at: list[int] = []
    kept: list[str] = []
    for at, sign in enumerate(symbol):
        if sign in "<(" and not symbol[:at].endswith(("operator", "operator<")):
            open_at.append(len(kept))
        kept.append(sign)
        if sign in ">)" and open_at and symbol[at - 1 : at] != "-":
            start = open_at.pop()
            # One that the name begins with is the name, as in Rust's <Reader as Drop>::drop.
            if start and len(kept) - start > LONG_LIST:
                kept[start + 1 : -1] = ["..."]
    return symbol if open_at else "".join(kept)


def module_name(site: Site) -> str:
    """Name the module that a site's caller is in."""
    return printable(short_module(caller(site).module))


def binding_name(site: Site) -> str:
    """Say through what a site enters: the extension module, where the binding is one of its own."""
    first = site.frames[0] if site.frames else Frame("?")
    if is_between(first.module) and not _INTERPRETER.match(short_module(first.module)):
        return printable(short_module(first.module))
    return printable(site.binding)


def thread_name(thread: Thread) -> str:
    """Name a thread; its number where it has no name."""
    return f"'{printable(thread.name)}'" if thread.name else f"thread {thread.tid}"


def thread_kind(thread: Thread) -> str:
    """Say in a user's words where a thread comes from."""
    kinds = {"main": "main", "python": "Python's", "foreign": "native", "other": "not in Python"}
    return kinds[thread.kind]


def places(recording: Recording, keys: Sequence[int]) -> str:
    """Name the first of these sites, and say how many there are besides; empty for none."""
    named: dict[str, None] = {}
    wanted = {key: at for at, key in enumerate(keys)}
    found = sorted(
        (site for site in recording.sites if site.key in wanted), key=lambda one: wanted[one.key]
    )
    for site in found:
        named[short_site_name(site)] = None
    more = len(named) - MOST_PLACES
    return ", ".join(list(named)[:MOST_PLACES]) + (f" and {more:,} more" if more > 0 else "")


def costliest_thread(recording: Recording, keys: frozenset[int]) -> tuple[str, float]:
    """Return the name under which most of these sites' calls came, and its share of them.

    Threads of one name count as one: a pool's.
    """
    calls: dict[str, int] = {}
    for thread, key, number in _uses(recording):
        if key in keys:
            name = thread_name(thread)
            calls[name] = calls.get(name, 0) + number
    if not calls or not (whole := sum(calls.values())):
        return "", 0.0
    name = max(calls, key=lambda one: calls[one])
    return name, calls[name] / whole


def _uses(recording: Recording) -> Iterator[tuple[Thread, int, int]]:
    for thread in recording.threads:
        for key, counts in thread.sites:
            yield thread, key, counts.calls
