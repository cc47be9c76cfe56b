"""Every relative link of every page leads to a file, and every anchor to a heading."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from support.processes import succeed

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = succeed("git", "-C", CHECKOUT, "ls-files", "*.md").split()


def without_code(text: str) -> str:
    return re.sub(
        r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have: as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = (f"{plain}-{number}" for number in itertools.count(1))
        found.add(next(name for name in itertools.chain([plain], again) if name not in found))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = CHECKOUT / page
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_every_page_is_in_the_contents() -> None:
    contents = CHECKOUT / "docs" / "README.md"
    linked = {
        (contents.parent / link.partition("#")[0]).resolve()
        for link in re.findall(r"\]\(([^)\s]+)\)", contents.read_text())
    }
    pages = {path.resolve() for path in (CHECKOUT / "docs").rglob("*.md")} - {contents}
    assert sorted(map(str, pages - linked)) == []


def test_every_picture_is_shown() -> None:
    pages = "".join((CHECKOUT / page).read_text() for page in PAGES)
    pictures = [path.name for path in (CHECKOUT / "docs" / "images").iterdir()]
    assert [name for name in pictures if name not in pages] == []
