"""The screen of moored top, driven by textual's own pilot."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install moored[top]")

from support.limits import HANG_S
from textual.widgets import DataTable

from moored.doctor import top
from moored.doctor.top_screen import TopScreen


def test_it_shows_sorts_pauses_and_ends(doctor) -> None:
    visit = doctor("parts.run_both(CALLBACK(lambda: None), 50)")

    async def drive() -> None:
        screen = TopScreen(top.Watch(visit.own.pid, visit.path), 0.01)
        async with screen.run_test() as pilot:
            await asyncio.wait_for(screen.workers.wait_for_complete(), HANG_S)
            await pilot.pause()
            table = screen.query_one(DataTable)
            assert len(table.columns) == len(top.COLUMNS)
            await pilot.press("s", "p")
            said = str(screen.query_one("#state").render())
            assert "sorted by temporary/s" in said
            assert "paused" in said
            assert "has ended" in said
            await pilot.press("q")
        assert screen.return_value == 0

    asyncio.run(drive())
