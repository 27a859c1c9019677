"""Completeness, archive and losses in a real browser: what they show, by mouse and by keyboard, over real objects."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from app.web.application import application
from tests.support.browser import Viewer, chromium
from tests.support.four_hours import World
from tests.support.path import until
from tests.support.redis_process import RedisProcess, running
from tests.support.rig import Rig


class Site:
    """The pages of a world, served on a port of their own, and a window onto them."""

    def __init__(self, world: World, redis: RedisProcess, viewer: Viewer) -> None:
        self.world, self.redis, self.viewer, self.page = world, redis, viewer, viewer.page

    def figures(self, path: str, selector: str) -> list[str]:
        self.viewer.open(path, f"{selector} .figure b")
        return [str(text) for text in self.page.locator(f"{selector} .figure b").all_inner_texts()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with chromium() as browser, running(tmp_path_factory.mktemp("redis")) as redis:
        world = World(Rig(tmp_path_factory.mktemp("pages"), redis.url))
        world.record()
        stream = next(name for name in world.wiring.streams if name.startswith("upbit"))
        words = "the venue closed it: 1008 <img src=x onerror=alert(1)>"
        state = {
            "stream": stream, "exchange": "upbit", "connection": "closed", "since_us": world.now_us, "why": words,
            "ends": [], "refused": 0, "feeds": [], "events": 0, "queued": 0, "last_data_us": None, "last_error": "",
        }  # fmt: skip
        world.wiring.board.publish(stream, state, 600)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(application(world.rig.wiring()), port=port, log_config=None, access_log=False)
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until(lambda: server.started, "the server listens")
        viewer = Viewer(browser, f"http://127.0.0.1:{port}")
        try:
            yield Site(world, redis, viewer)
        finally:
            viewer.close()
            server.should_exit = True
            thread.join(10)


def test_the_grid_counts_hours_by_state_and_a_click_opens_one(site: Site) -> None:
    assert site.figures("/completeness?hours=24", "#completeness-sums") == ["2", "0", "2", "2", "138"]
    assert "of 6 feeds over 24 hours; 2 feeds have a gap" in site.page.get_attribute("canvas", "aria-label")
    box = site.page.locator("canvas").bounding_box()
    # The second row is btcusdt's trades, the fourth column from the right is hour 0 of the world.
    width = box["width"] / 24
    site.page.mouse.move(box["x"] + 20.5 * width, box["y"] + 34 + 20 + 10)
    tip = site.viewer.text(".heat-tip")
    assert "binance btcusdt trade" in tip and "57.1429 % complete, 4 rows, 1 of 1 gaps open" in tip
    site.page.mouse.click(box["x"] + 20.5 * width, box["y"] + 34 + 20 + 10)
    site.page.wait_for_selector("#completeness-cell .cell")
    opened = site.viewer.text("#completeness-cell")
    assert "3 – 5" in opened and "missing_ids" in opened and "57.1429 %" in opened
    assert f"cell=binance%2Fbtcusdt%2Ftrade%2F{site.world.hours[0]}" in site.page.url
    assert site.viewer.faults() == []


def test_keys_walk_the_grid_and_the_table_says_the_same(site: Site) -> None:
    site.viewer.open("/completeness?hours=24", "#completeness-sums .figure b")
    site.page.focus("canvas")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft", "Enter"):
        site.page.keyboard.press(key)
    site.page.wait_for_selector("#completeness-cell .cell")
    assert "binance ethusdt trade" in site.viewer.text("#completeness-cell h1")
    assert "queue_full" in site.viewer.text("#completeness-cell")
    site.page.click("text=Table")
    row = site.page.locator(".heat-table tbody tr", has_text="binance btcusdt trade").locator("button")
    assert row.all_inner_texts()[-4:] == ["G", "·", "·", "P"]
    row.nth(20).focus()
    site.page.keyboard.press("Enter")
    site.page.wait_for_selector("#completeness-cell h1:has-text('btcusdt')")
    assert site.viewer.faults() == []


def test_the_archive_shows_its_objects_and_a_manifest(site: Site) -> None:
    figures = site.figures("/archive", "#archive-sums")
    rows = sum(entry.rows for entry in site.world.wiring.ledger.objects())
    assert figures[:2] == ["5", str(rows)]
    site.page.wait_for_selector("#archive-objects [data-key]")
    site.page.select_option("#archive-objects select", "upbit/KRW-BTC")
    site.page.wait_for_selector("#archive-objects tbody tr:only-child [data-key]")
    site.page.click("#archive-objects [data-key]")
    site.page.wait_for_selector("#archive-object section")
    (entry,) = [one for one in site.world.wiring.ledger.objects() if one.exchange == "upbit"]
    told = site.viewer.text("#archive-object")
    assert entry.key in told and entry.sha256 in told and "unknowable when it was archived" in told
    assert site.viewer.faults() == []


def test_the_venues_words_and_frames_are_shown_as_text(site: Site) -> None:
    figures = site.figures("/losses", "#losses-sums")
    assert figures[:4] == ["2", "1", "0", "1"]
    site.page.wait_for_selector("#quarantine code.frame")
    assert site.page.inner_text("#quarantine code.frame").startswith("\\xff<b>\\x1b[0mxxx")
    assert "1008 <img src=x onerror=alert(1)>" in site.viewer.text("#connections")
    assert site.page.locator("main img, main b b").count() == 0
    assert "queue_full" in site.viewer.text("#losses-causes")
    assert site.viewer.faults() == []


def test_without_redis_the_pages_go_on_with_what_is_stored(site: Site) -> None:
    site.redis.kill()
    try:
        assert site.figures("/archive", "#archive-sums")[0] == "5"
        site.page.wait_for_selector("text=Redis does not answer")
        assert site.figures("/losses", "#losses-sums")[0] == "2"
        site.page.wait_for_selector("#connections .fault")
    finally:
        site.redis.start()
    assert site.viewer.faults(outage=True) == []


@pytest.mark.exhaustive
def test_a_phone_shows_each_page_without_scrolling_sideways(site: Site, tmp_path: Path) -> None:
    site.page.set_viewport_size({"width": 390, "height": 844})
    try:
        for path in ("/completeness", "/archive", "/losses"):
            site.viewer.open(path, ".figures .figure b")
            assert site.page.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        site.page.set_viewport_size({"width": 1440, "height": 900})
