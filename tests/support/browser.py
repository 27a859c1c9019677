"""A real browser (Debian's Chromium, by Playwright), and what a page must never do in it.

A machine without one skips these tests, or fails them where COLLECTOR_TEST_REQUIRE names `chromium`. While a browser is
open no test of the same process can call `asyncio.run`: the fixture lives no longer than its module.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

#: Words of the console that tell of what the test itself did: a server or Redis that it took away for a while.
OUTAGE = ("Failed to load resource", "net::ERR_")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright. Skips where there is none."""
    require = "chromium" in os.environ.get("COLLECTOR_TEST_REQUIRE", "").split(",")
    give_up = pytest.fail if require else pytest.skip
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        give_up("no chromium on this machine (Debian: apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        give_up("playwright is not installed (pip install -e .[dev])")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Viewer:
    """One window onto the web process at `base`, which remembers everything that is wrong with its pages.

    `options` are Playwright's of a context: `color_scheme`, `viewport`, `http_credentials`, ...
    """

    def __init__(self, browser: Any, base: str, **options: Any) -> None:
        self.base = base.rstrip("/")
        self._context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}} | options)
        self._context.set_default_timeout(20_000)
        self.page: Any = self._context.new_page()
        #: What the console called an error, exceptions of scripts, and what the policy refused.
        self.errors: list[str] = []
        #: Requests to another host than ours.
        self.foreign: list[str] = []
        host = urlsplit(self.base).netloc
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self._context.on("request", lambda r: self.foreign.append(r.url) if urlsplit(r.url).netloc != host else None)
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('policy:', e.violatedDirective, e.blockedURI))"
        )

    def open(self, path: str, wait_for: str = "main > *") -> Any:
        """Go to `path` as a user who types it, and wait until the selector is there. Returns Playwright's page."""
        self.page.goto(f"{self.base}{path}")
        self.page.wait_for_selector(wait_for)
        return self.page

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return str(self.page.inner_text(selector))

    def faults(self, *, outage: bool = False) -> list[str]:
        """What was wrong so far; with an `outage` that the test made, requests that failed are not."""
        known = [e for e in self.errors if not (outage and any(words in e for words in OUTAGE))]
        return known + [f"asked another host: {url}" for url in self.foreign]

    def close(self) -> None:
        self._context.close()
