"""Every known hazard of native threads in CPython, met without moored and with it."""

from __future__ import annotations

import pytest
from hazard import Child, Hazard, here, write_record
from hazards import HAZARDS


@pytest.mark.parametrize("hazard", HAZARDS, ids=lambda hazard: hazard.identity)
def test_hazard(child: Child, hazard: Hazard) -> None:
    if reason := hazard.not_run():
        write_record(hazard, not_run=reason)
        pytest.skip(reason)
    stock = child.see(hazard, "stock")
    moored = child.see(hazard, "moored")
    write_record(hazard, stock=stock, moored=moored)
    assert moored == here(hazard.must_show)
    if known := here(hazard.stock_shows):
        assert stock == known
