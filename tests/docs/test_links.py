"""Every link of every page leads somewhere, and every file that a page names is there."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from support.checkout import CHECKOUT, files

FILES = files()
PAGES = [str(file) for file in FILES if file.suffix == ".md"]
TOP = {file.parts[0] for file in FILES if len(file.parts) > 1}


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


def is_there(name: str, page: Path) -> bool:
    """Whether there is a file or a folder of this name, of which the beginning may be left out."""
    wanted = Path(name).parts
    if name.endswith("/"):
        return (CHECKOUT / name).is_dir() or any(
            wanted == file.parts[at : at + len(wanted)]
            for file in FILES
            for at in range(len(file.parts) - len(wanted))
        )
    return any(file.parts[-len(wanted) :] == wanted for file in FILES) or (
        (CHECKOUT / name).exists() or (page.parent / name).exists()
    )


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/design/")])
def test_files_of_the_source_that_are_named_are_there(page: str) -> None:
    path = CHECKOUT / page
    named = re.findall(r"`([\w./-]+\.(?:hpp|cpp|h|py))`", path.read_text())
    assert [name for name in named if not is_there(name, path)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_paths_that_are_named_are_there(page: str) -> None:
    path = CHECKOUT / page
    named = [name for name in re.findall(r"`([\w./-]+)`", path.read_text()) if "/" in name]
    ours = [name for name in named if Path(name).parts[0] in TOP - {"build"}]
    assert [name for name in ours if not is_there(name, path)] == []


def test_every_example_is_on_a_page_of_use() -> None:
    pages = "".join(page.read_text() for page in (CHECKOUT / "docs" / "use").glob("*.md"))
    examples = [path.name for path in (CHECKOUT / "examples").iterdir() if path.is_dir()]
    assert [name for name in examples if f"(../../examples/{name})" not in pages] == []


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
