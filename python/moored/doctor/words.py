"""Words: how times, counts and shares are written, and what of a recording can be shown."""

from __future__ import annotations

import unicodedata

_UNITS = ((1e9, 1e8, "s"), (1e6, 1e6, "ms"), (1e3, 1e3, "us"))
"""A unit in ns, from which time on it is used, and its sign."""


def time(ns: float) -> str:
    """Write a time with the unit that suits it."""
    fitting = [one for one in _UNITS if abs(ns) >= one[1] * 0.9995]
    if not fitting:
        return f"{ns:.0f} ns"
    scale, _, unit = fitting[0]
    value = ns / scale
    if unit == "s" and value >= 100:
        return f"{value:,.0f} s"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def seconds(value: float) -> str:
    """Write how long something ran."""
    return f"{value:,.1f} s" if value < 999.95 else f"{value:,.0f} s"


def percent(share: float) -> str:
    """Write a share: two digits below 10 %, none of them when it is nothing."""
    value = 100 * share
    if value == 0:
        return "0 %"
    if value < 0.05:
        return "<0.1 %"
    return f"{value:.{1 if value < 9.95 else 0}f} %"


def count(number: int, thing: str, things: str = "") -> str:
    """Write a number and what it counts."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def printable(text: str) -> str:
    """Return recorded text without what would steer a terminal or break a line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or unicodedata.category(one) == "Zs" else "?" for one in text
    )
