"""The pages name no package that no index has, and no folder of one machine."""

from __future__ import annotations

import re

import pytest
from support.checkout import CHECKOUT, files

PAGES = [str(path) for path in files() if path.suffix == ".md"]


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_installed_from_an_index_that_does_not_have_it(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    assert re.findall(r"pip3? install (?:-\S+ )*moored(?:-lab)?\b", text) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_folder_of_one_machine(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    assert re.findall(r"(?<![\w.~$}/])/(?:home|root|work|tmp|Users)/\S*", text) == []
