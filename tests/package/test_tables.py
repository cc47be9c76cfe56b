"""One table of each thing: C++, C, Python and the launcher say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import moored
from moored.channel import _DROPPED, Delivery
from moored.cli.errors import ExitCode

CHECKOUT = Path(__file__).resolve().parents[2]
INCLUDE = CHECKOUT / "include" / "moored"
STRUCTS = {
    "state_stats": "detail/gate/stats.hpp",
    "chunk_stats": "install.hpp",
    "channel_stats": "delivery.hpp",
}


def members(path: Path, struct: str) -> list[str]:
    """The names of a struct's members, in order."""
    body = re.search(rf"struct {struct} {{(.*?)^}}", path.read_text(), re.DOTALL | re.MULTILINE)
    assert body, path
    return re.findall(r"^\s*(?:std::)?uint64_t (\w+)", body[1], re.MULTILINE)


def names(path: Path, table: str) -> list[str]:
    """The strings of a constexpr array, in order."""
    body = re.search(rf"\b{table}\s*{{(.*?)}}", path.read_text(), re.DOTALL)
    assert body, path
    return re.findall(r'"(\w+)"', body[1])


@pytest.mark.parametrize("struct", STRUCTS)
def test_c_has_the_structs_of_cpp(struct: str) -> None:
    ours = members(INCLUDE / STRUCTS[struct], struct)
    assert members(INCLUDE / "moored.h", f"moored_{struct}") == ours
    assert ours


@pytest.mark.parametrize("struct", ["state_stats", "channel_stats"])
def test_the_names_are_those_of_the_members(struct: str) -> None:
    header = INCLUDE / STRUCTS[struct]
    assert names(header, f"{struct}_names") == members(header, struct)


def test_stats_of_moored_run_are_the_first_of_ours() -> None:
    table = (CHECKOUT / "src" / "run" / "run_table.hpp").read_text()
    listed = re.search(r"struct run_stats {\s*std::uint64_t ([^;]*);", table)
    assert listed
    theirs = re.findall(r"\w+", listed[1])
    assert theirs == members(INCLUDE / STRUCTS["state_stats"], "state_stats")[: len(theirs)]


def test_python_types_every_number() -> None:
    assert list(moored.stats()) == list(get_type_hints(moored.Stats))
    numbers = members(INCLUDE / STRUCTS["channel_stats"], "channel_stats")
    typed = set(get_type_hints(moored.ChannelStats)) - {"dropped"}
    assert sorted({*typed, *_DROPPED.values()}) == sorted(numbers)
    dropped = get_type_hints(moored.ChannelStats)["dropped"]
    assert list(get_type_hints(dropped)) == list(_DROPPED)


def test_deliveries_have_the_names_of_cpp() -> None:
    header = INCLUDE / "delivery.hpp"
    assert list(get_args(Delivery)) == names(header, "delivery_names")


def test_the_launcher_has_our_exit_codes() -> None:
    text = (CHECKOUT / "src" / "run" / "launcher" / "failure.hpp").read_text()
    theirs = {name: int(code) for name, code in re.findall(r"constexpr int (\w+) = (\d+);", text)}
    assert theirs == {
        "usage": ExitCode.USAGE,
        "not_possible_here": ExitCode.NOT_POSSIBLE_HERE,
        "not_executable": ExitCode.CANNOT_BE_RUN,
        "not_found": ExitCode.NOT_FOUND,
    }


def test_the_page_has_every_exit_code() -> None:
    page = (CHECKOUT / "docs" / "use" / "run.md").read_text()
    table = page[page.index("## Exit codes") :]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(
        ExitCode
    )


def test_the_pages_have_every_number() -> None:
    native = (CHECKOUT / "docs" / "use" / "native.md").read_text()
    table = native[native.index("### Stats") :]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert listed == members(INCLUDE / STRUCTS["state_stats"], "state_stats")
    callbacks = (CHECKOUT / "docs" / "use" / "callbacks.md").read_text()
    assert [name for name in moored.stats() if f"`{name}`" not in callbacks] == []


def test_the_page_has_every_refusal_and_every_option() -> None:
    native = (CHECKOUT / "docs" / "use" / "native.md").read_text()
    header = (INCLUDE / "detail" / "gate" / "refusal.hpp").read_text()
    refusals = re.findall(r"^  (\w+),\s+///<", header, re.MULTILINE)
    assert re.findall(r"^\| `(\w+)` \| `MOORED_", native, re.MULTILINE) == refusals
    options = re.search(
        r"struct channel_options {(.*?)^};",
        (INCLUDE / "delivery.hpp").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert options
    named = re.findall(r"^  [\w:]+(?: | \w+ )(\w+)(?: =|{)", options[1], re.MULTILINE)
    table = native[native.index("### channel_options") : native.index("### Stats")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == named


def test_the_labs_modes_are_those_of_its_server() -> None:
    server = (CHECKOUT / "lab" / "native" / "server" / "modes.cpp").read_text()
    from moored_lab.wakeup.options import MODES

    assert re.findall(r'mode{"([\w-]+)"', server) == list(MODES)
