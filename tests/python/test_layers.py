"""The layers of include/moored, as its README.md has them: includes go down only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HEADERS = Path(__file__).resolve().parents[2] / "include" / "moored"

# The lowest first. A folder stands for its files, a name alone for that file.
LAYERS = [
    ["detail"],
    ["detail/cpython"],
    ["detail/gate"],
    ["detail/states"],
    ["study"],
    [
        f"{name}.hpp"
        for name in (
            "version",
            "install",
            "delivery",
            "interpreter",
            "attach",
            "reference",
            "python_error",
            "converter",
        )
    ],
    ["detail/channel"],
    ["channel.hpp", "promise.hpp", "call.hpp", "moored.h"],
    ["moored.hpp", "interop"],
]

FILES = sorted(HEADERS.rglob("*.h*"))


def layer(header: Path) -> int:
    """The number of the layer that the header is of; -1 for none."""
    inside = header.relative_to(HEADERS)
    room = inside.name if inside.parent == Path() else inside.parent.as_posix()
    return next((number for number, rooms in enumerate(LAYERS) if room in rooms), -1)


def included(header: Path) -> list[Path]:
    """The headers of moored that it names."""
    own = [
        (header.parent / name).resolve()
        for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', header.read_text(), re.MULTILINE)
    ]
    angled = [
        HEADERS / name
        for name in re.findall(
            r"^\s*#\s*include\s*<moored/([^>]+)>", header.read_text(), re.MULTILINE
        )
    ]
    return own + angled


@pytest.mark.parametrize("header", FILES, ids=lambda path: path.relative_to(HEADERS).as_posix())
def test_a_header_includes_nothing_of_a_layer_above_its_own(header: Path) -> None:
    names = included(header)
    assert layer(header) >= 0, "the README's table has no layer for it"
    assert [name for name in names if not name.is_file()] == []
    up = [name.relative_to(HEADERS).as_posix() for name in names if layer(name) > layer(header)]
    assert up == []


def test_the_readme_has_every_folder() -> None:
    page = (HEADERS / "README.md").read_text()
    folders = {path.parent.relative_to(HEADERS).as_posix() for path in FILES} - {".", "detail"}
    assert [folder for folder in sorted(folders) if f"`{folder}/`" not in page] == []


@pytest.mark.parametrize("header", [path for path in FILES if "cpython" not in path.parts])
def test_only_detail_cpython_looks_at_versions(header: Path) -> None:
    text = header.read_text()
    assert "PY_VERSION_HEX" not in re.sub(r"//.*", "", text)
