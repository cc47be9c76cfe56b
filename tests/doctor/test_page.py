"""The page: one file that asks for nothing, in both themes, on a phone, whatever was recorded."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doctor_recordings import CHURN, churning, healthy, large, site, thread

from moored.doctor import page
from moored.doctor.page import flame
from moored.doctor.recording import Counts, Frame, Recording
from moored.doctor.stacks import Stack

MOST_BYTES = 5_000_000
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{data}}\u2028"


def evil() -> Recording:
    """A process all of whose names are meant to harm the page."""
    return replace(
        churning(),
        path=EVIL,
        command=EVIL,
        python=EVIL,
        moored=EVIL,
        machine={EVIL: EVIL},
        sites=(site(1, CHURN, binding=EVIL, frames=(Frame(EVIL, EVIL), Frame(EVIL, EVIL))),),
        threads=(thread(4243, EVIL, CHURN),),
    )


def data_in(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    made: dict[str, Any] = json.loads(found[1])
    return made


def test_the_page_begins_with_the_verdict() -> None:
    text = page.export(churning())
    assert "<h1>43,120 temporary thread states in 12.4 s: 0.61 s, 4.9 % of the process" in text
    assert "<pre><code>moored run app.py --port 80</code></pre>" in text
    assert "<pre><code>moored doctor app.py --port 80</code></pre>" in text
    assert "a &lt;b&gt;CPU&lt;/b&gt;" in text


def test_the_page_refers_to_nothing_outside() -> None:
    text = page.export(churning())
    assert "default-src &#x27;none&#x27;" in text
    assert "unsafe-eval" not in text
    assert not re.search(r"<(?:link|img|iframe|object|embed|video|audio|base)\b", text)
    assert "speedscope.app/file-format-schema.json" in text  # which is a name, and not loaded
    assert not re.search(r"""(?:src|href|action)\s*=\s*["']?\s*(?:https?:|//)""", text)
    assert "url(" not in text
    assert "@import" not in text


def test_every_place_of_the_template_is_filled() -> None:
    assert "{{" not in page.export(churning()).replace("{{}}", "")


def test_names_that_mean_harm_stay_text() -> None:
    text = page.export(evil())
    assert text.count("<script") == 6
    assert text.count("</script") == 6
    assert "<img" not in text
    assert data_in(text)["threads"][0][0].startswith("'</script>")


def test_the_flame_graph_leaves_out_what_is_too_narrow() -> None:
    wide = Stack("t", 1, ("a", "b"), 1_000_000, 1)
    narrow = Stack("t", 1, ("a", "c"), 10, 1)
    names, root = flame.as_json(flame.tree([wide, narrow]))
    assert root[1] == 1_000_010
    assert names[root[0]] == "all native threads"
    (a,) = root[2]
    assert (names[a[0]], a[1]) == ("a", 1_000_010)
    assert [names[one[0]] for one in a[2]] == ["b"]


def test_bands_of_cpu_add_up() -> None:
    recording = large(20, 300)
    bands = data_in(page.export(recording))["cpu"]["bands"]
    assert bands[0]["name"] == "main"
    assert bands[-1]["name"] == "others"
    assert len(bands) == 10
    sums = [sum(band["percent"][at] for band in bands) for at in range(600)]
    assert sums == pytest.approx([100.0] * 600, abs=1.0)


def test_a_large_recording_is_a_small_page_made_soon() -> None:
    recording = large()
    began = time.process_time()
    text = page.export(recording)
    assert time.process_time() - began < 5.0
    assert len(text.encode()) < MOST_BYTES
    assert len(data_in(text)["sites"]) == 5_000
    assert len(data_in(text)["threads"]) == 2_000


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium here")
    with api.sync_playwright() as playwright:
        # With WebGL in software: a machine of CI has no other.
        options = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()


class Opened:
    """A page in the browser, with all that it said and asked for."""

    def __init__(self, browser: Any, path: Path, theme: str, width: int) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.context = browser.new_context(
            color_scheme=theme, viewport={"width": width, "height": 844}
        )
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.address = path.as_uri()
        self.page.goto(self.address)
        self.page.wait_for_selector("#threads tbody tr, #threads p")

    def is_clean(self) -> bool:
        """No word on the console, and no request but the one for the page itself."""
        assert self.said == []
        assert self.asked == [self.address]
        return True

    def width(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("kind", ["churning", "empty", "large", "evil"])
def test_the_page_in_a_browser(
    browser: Any, tmp_path: Path, theme: str, width: int, kind: str
) -> None:
    recording = {
        "churning": churning,
        "empty": lambda: healthy(sites=(), threads=(), samples=()),
        "large": large,
        "evil": evil,
    }[kind]()
    path = tmp_path / "page.html"
    path.write_text(page.export(recording))
    shown = Opened(browser, path, theme, width)
    try:
        if kind != "empty":
            shown.page.wait_for_selector("#cpu canvas")
            shown.page.wait_for_selector("#waits canvas")
            shown.page.wait_for_selector("#flame button")
        assert shown.width() <= width
        tables = "[...document.querySelectorAll('.rows')]"
        fits = f"{tables}.every(one => one.scrollWidth <= one.clientWidth)"
        assert kind == "evil" or shown.page.evaluate(fits)
        ground = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
        lightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
        assert (lightness > 128) is (theme == "light")
        assert shown.is_clean()
    finally:
        shown.context.close()


def test_tables_are_sorted_and_searched(browser: Any, tmp_path: Path) -> None:
    two = replace(
        churning(),
        sites=(
            site(1, CHURN),
            site(2, Counts(calls=99_999, attach_ns=5), frames=(Frame("libother.so", "f"),)),
        ),
    )
    path = tmp_path / "page.html"
    path.write_text(page.export(two))
    shown = Opened(browser, path, "light", 1200)
    try:
        first = "#sites tbody tr:first-child td:first-child"
        assert shown.page.inner_text(first) == "libgstbase!gst_base_src_loop"
        shown.page.click("#sites th:nth-child(4) button")
        assert shown.page.inner_text(first) == "libother!f"
        shown.page.click("#sites th:nth-child(4) button")
        assert shown.page.inner_text(first) == "libgstbase!gst_base_src_loop"
        shown.page.fill("#sites input", "other")
        assert shown.page.locator("#sites tbody tr").count() == 1
        assert shown.is_clean()
    finally:
        shown.context.close()


def test_a_click_widens_a_box_of_the_flame_graph(browser: Any, tmp_path: Path) -> None:
    waiting = replace(CHURN, wait_ns=300_000_000, wait_for_main_ns=300_000_000)
    path = tmp_path / "page.html"
    path.write_text(page.export(replace(churning(), threads=(thread(7, "t", waiting),))))
    shown = Opened(browser, path, "light", 1000)
    try:
        part = shown.page.locator("#flame button", has_text="[wait for the GIL: main]")
        whole = shown.page.locator("#flame button", has_text="all native threads")
        assert part.bounding_box()["width"] < 0.6 * whole.bounding_box()["width"]
        part.click()
        assert part.bounding_box()["width"] == whole.bounding_box()["width"]
        assert "0.30 s, 48 %" in shown.page.inner_text("#said")
        whole.click()
        assert part.bounding_box()["width"] < 0.6 * whole.bounding_box()["width"]
        assert shown.is_clean()
    finally:
        shown.context.close()


@pytest.mark.parametrize("symbol", ["gst_base_src_loop", "_ZN4feed6Reader3runEv", EVIL])
def test_speedscope_shows_the_same_stacks(browser: Any, tmp_path: Path, symbol: str) -> None:
    path = tmp_path / "page.html"
    named = site(1, CHURN, frames=(Frame("libfeed.so", symbol),))
    path.write_text(page.export(churning(sites=(named,))))
    shown = Opened(browser, path, "light", 1000)
    try:
        button = shown.page.locator("#speedscope button")
        if not button.count():
            pytest.skip("this Chromium has no WebGL")
        button.click()
        frame = shown.page.frame_locator("iframe")
        frame.get_by_text("all threads").wait_for()
        frame.get_by_text("Sandwich").click()
        frame.get_by_text("[attach and release]").first.wait_for()
        assert frame.get_by_text(f"libfeed!{symbol[:8]}").count() >= 1
        talk = re.compile("speedscope|WebGL|GL Driver|import", re.I)
        assert [word for word in shown.said if not talk.search(word)] == []
        assert [address for address in shown.asked if address != shown.address] == []
    finally:
        shown.context.close()
