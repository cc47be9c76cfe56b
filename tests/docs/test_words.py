"""The pages speak of things, name no package that no index has, and no folder of one machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.processes import succeed

CHECKOUT = Path(__file__).resolve().parents[2]
GENERATED = {"docs/measure/safety.md"}
PAGES = [
    name
    for name in succeed(
        *("git", "-C", CHECKOUT, "ls-files", "*.md", ":!include", ":!lab")
    ).splitlines()
    if name not in GENERATED
]
PERSONS = re.compile(
    r"\b(?:wh(?:o|om|ose|oever)|(?:some|any|every)(?:body|one)|no(?:body| one))\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES)
def test_no_word_of_a_person(page: str) -> None:
    assert PERSONS.findall((CHECKOUT / page).read_text()) == []


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_installed_from_an_index_that_does_not_have_it(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    assert re.findall(r"pip3? install (?:-\S+ )*moored(?:-lab)?\b", text) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_folder_of_one_machine(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    assert re.findall(r"(?<![\w.~$}/])/(?:home|root|work|tmp|Users)/\S*", text) == []
