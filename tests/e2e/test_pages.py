"""The demo in a browser: every page of it, and the same figures on the page, from the API, as metrics and by the audit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.launch.demo import Demo
from app.pipeline.audit import audit
from tests.support.browser import Viewer, chromium
from tests.support.path import until
from tests.support.rig import MARKETS, Rig

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(180)]

#: A hole that REST can fill, a frame that nobody can read, and a connection that ends with words to be escaped.
FAULTS = (
    "lose,venue=okx,symbol=BTC-USDT,feed=trade,skip=5",
    "garbage,venue=bybit,kind=text,skip=20",
    "close,venue=upbit,code=1012,reason=<b>service restart</b>,skip=40",
)
#: Each page is alive so soon after the demo was started: on a machine of its own, and here, among other tests.
ALIVE_S, SHARED_S = 20.0, 120.0
PAGES = {
    "/": ".market .tile[data-state='live']",
    "/market/okx/BTC-USDT": ".ladder, .tape",
    "/completeness": "#completeness-sums .figure",
    "/archive": "#archive-sums .figure",
    "/losses": "#losses-sums .figure",
}


class Brief(Demo):
    """The demo with segments of five seconds: something is archived soon."""

    tables: ClassVar[Mapping[str, Mapping[str, object]]] = {"storage": {"segment_secs": 5}}


@dataclass
class Shown:
    """A demo that was looked at while it ran and after its exchanges had fallen silent."""

    demo: Demo
    viewer: Viewer
    #: What each page of the first look said.
    first: dict[str, str]
    audit: dict[str, Any]
    metrics: dict[str, float]
    #: Seconds from the start of the demo until each page was alive, looked at one after the other.
    alive_s: dict[str, float]

    def api(self, path: str) -> Any:
        answer = httpx.get(f"{self.viewer.base}{path}", timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def figures(self, path: str, selector: str) -> list[str]:
        """The large figures of a page, in order."""
        self.viewer.open(path, f"{selector} .figure b")
        return [str(text) for text in self.viewer.page.locator(f"{selector} .figure b").all_inner_texts()]


def audited(demo: Demo) -> dict[str, Any]:
    """`collector audit --json`."""
    rig = Rig.__new__(Rig)
    rig.directory, rig.path = demo.directory, demo.directory / "settings.toml"
    told: dict[str, Any] = json.loads(rig.collector("audit", "--json").stdout)
    return told


def summed(base: str) -> dict[str, float]:
    """/metrics, each name summed over its labels; `name state` over all but the state."""
    found: dict[str, float] = {}
    text = httpx.get(f"{base}/metrics", timeout=30, trust_env=False).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for name in (sample.name, f"{sample.name} {sample.labels.get('state', '')}"):
                found[name] = found.get(name, 0.0) + sample.value
    return found


COUNTERS = {
    "received": "collector_messages_received_total",
    "duplicates": "collector_messages_duplicate_total",
    "quarantined": "collector_messages_quarantined_total",
    "lost": "collector_messages_lost_total",
}


def agree(told: dict[str, Any], metrics: dict[str, float]) -> bool:
    """Whether nothing is on its way any more or asked for again, and every process has brought its counts."""
    totals = told["totals"]
    stored = totals["segments"] + totals["archived"]
    return (
        totals["redis"] + totals["spool"] + totals["segments"] + metrics.get("collector_gaps open", 0) == 0
        and all(metrics.get(name) == totals[column] for column, name in COUNTERS.items())
        and metrics.get("collector_messages_stored_total") == stored
        and 0 < totals["archived"] == metrics.get("collector_snapshots_archived_total")
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    demo = Brief(tmp_path_factory.mktemp("demo") / "demo", None, 5.0, lambda words: None)
    with chromium() as browser:
        started_s = time.monotonic()
        try:
            demo.start()
            demo.control("faults", "; ".join(FAULTS))
            base = f"http://127.0.0.1:{demo.web_port}"
            until(lambda: _answers(f"{base}/health"), "the web process answers", 60)
            viewer = Viewer(browser, base)
            viewer.page.set_default_timeout(60_000)
            first, alive_s = {}, {}
            for path, selector in PAGES.items():
                viewer.open(path, selector)
                alive_s[path] = round(time.monotonic() - started_s, 1)
                first[path] = viewer.text("main")
            until(lambda: demo.wiring.ledger.totals()[1] > 0, "something is archived", 60)
            demo.control("stop")
            settled = Shown(demo, viewer, first, {}, {}, alive_s)

            def still() -> bool:
                demo.look()
                settled.audit, settled.metrics = audit(demo.wiring).as_dict(), summed(base)
                return agree(settled.audit, settled.metrics)

            until(still, "audit and metrics agree", 60)
            settled.audit = audited(demo)
            yield settled
            viewer.close()
        finally:
            demo.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code in (200, 503)
    except httpx.TransportError:
        return False


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_every_page_is_alive_while_it_records(shown: Shown) -> None:
    for exchange, symbols in MARKETS.items():
        assert exchange in shown.first["/"]
        assert all(symbol in shown.first["/"] for symbol in symbols)
    assert "BTC-USDT" in shown.first["/market/okx/BTC-USDT"]
    assert "hours proved" in shown.first["/completeness"]
    assert "objects proved equal in the store" in shown.first["/archive"]
    assert "events lost" in shown.first["/losses"]


def test_every_page_is_alive_soon_after_the_start(shown: Shown, record_property: Callable[[str, object], None]) -> None:
    """Within ALIVE_S on a machine of its own, which is a promise to a newcomer (9 to 17 s were seen for the last page). Here
    it is measured, and SHARED_S has to do: 51 s were seen on two processors with a load of five.
    """
    record_property("alive_s", shown.alive_s)
    print(f"alive after: {shown.alive_s} s; promised: {ALIVE_S:g} s on a machine of its own")
    assert shown.alive_s.keys() == PAGES.keys()
    assert {path: s for path, s in shown.alive_s.items() if s > SHARED_S} == {}


def test_the_overview_shows_what_the_api_the_metrics_and_the_audit_say(shown: Shown) -> None:
    totals = shown.audit["totals"]
    assert shown.audit["balanced"], shown.audit["differences"]
    expected = [
        totals["received"], totals["segments"] + totals["archived"], totals["duplicates"], totals["quarantined"],
        totals["lost"], totals["replays"],
    ]  # fmt: skip
    assert totals["received"] > 100 and totals["quarantined"] == 1
    sums = shown.api("/api/overview")["sums"]
    assert [sums[name] for name in ("received", "stored", "duplicates", "quarantined", "lost", "replayed")] == expected
    page = shown.figures("/", "section[aria-label='Since counting began']")
    assert [number(text) for text in page] == expected


def test_the_completeness_page_shows_every_stored_event_in_its_hour(shown: Shown) -> None:
    told = shown.api("/api/completeness?hours=48")
    cells = [cell for feed in told["feeds"] for cell in feed["cells"] if cell]
    totals = shown.audit["totals"]
    assert sum(cell["rows"] for cell in cells) == totals["segments"] + totals["archived"]
    states = [cell["state"] for cell in cells]
    empty = sum(cell is None for feed in told["feeds"] for cell in feed["cells"])
    page = shown.figures("/completeness", "#completeness-sums")
    expected = [states.count(state) for state in ("proved", "repaired", "gap", "unknowable")]
    assert [number(text) for text in page] == [*expected, empty]
    assert expected[0] > 0, "trades whose ids count are proved"


def test_the_hour_of_a_lost_frame_opens_its_gap_and_what_became_of_it(shown: Shown) -> None:
    told = shown.api("/api/completeness?hours=48")
    (feed,) = [f for f in told["feeds"] if (f["exchange"], f["symbol"], f["data_type"]) == ("okx", "BTC-USDT", "trade")]
    at = [n for n, cell in enumerate(feed["cells"]) if cell and cell.get("gaps")]
    assert at, feed["cells"][-2:]
    assert feed["cells"][at[0]]["state"] in ("gap", "repaired")
    hour_us = told["hours_us"][at[0]]
    (gap, *_) = shown.api(f"/api/completeness/okx/BTC-USDT/trade/{hour_us}")["gaps"]["newest"]
    shown.viewer.open(f"/completeness?cell=okx/BTC-USDT/trade/{hour_us}", "#completeness-cell .cell")
    opened = shown.viewer.text("#completeness-cell")
    assert f"{gap['from_id']} – {gap['to_id']}" in opened
    assert (gap["repair"] or "open") in opened


def test_the_archive_page_shows_what_the_store_holds(shown: Shown) -> None:
    told = shown.api("/api/archive")
    totals = shown.audit["totals"]
    assert told["total"]["rows"] == totals["archived"]
    assert told["total"]["objects"] == shown.audit["manifests"] == len(list(_parquet(shown.demo)))
    assert told["total"]["size_bytes"] == sum(path.stat().st_size for path in _parquet(shown.demo))
    page = shown.figures("/archive", "#archive-sums")
    assert [number(text) for text in page[:2]] == [told["total"]["objects"], told["total"]["rows"]]
    kinds = [k for k in told["compression"] or {} if told["compression"][k]]
    assert "text_bytes" in kinds and told["compression"]["ratio"] > 1
    key = told["objects"]["rows"][0]["key"]
    shown.viewer.page.click(f"[data-key='{key}']")
    shown.viewer.page.wait_for_selector("#archive-object section")
    assert told["objects"]["rows"][0]["sha256"] in shown.viewer.text("#archive-object")


def test_the_losses_page_shows_what_was_lost_kept_aside_and_said(shown: Shown) -> None:
    told, totals = shown.api("/api/losses"), shown.audit["totals"]
    assert sum(cause["events"] for cause in told["losses"]["by_cause"]) == totals["lost"]
    assert told["quarantine"]["total"] == totals["quarantined"] == 1
    page = [number(text) for text in shown.figures("/losses", "#losses-sums")[:4]]
    unknown = sum(cause["of_unknown_extent"] for cause in told["losses"]["by_cause"])
    assert page == [totals["lost"], told["losses"]["total"], unknown, totals["quarantined"]]
    shown.viewer.page.wait_for_selector("#quarantine code.frame")
    assert told["quarantine"]["newest"][0]["head"][:40] in shown.viewer.text("#quarantine")
    assert "<b>service restart</b>" in shown.viewer.text("#connections"), "the venue's words, as words"
    (ended,) = [one for one in told["ended"] if one["exchange"] == "upbit"][-1:]
    assert ended["reason"] in shown.viewer.text("#ended")


def test_no_page_said_an_error_or_asked_another_host(shown: Shown) -> None:
    assert shown.viewer.faults() == []


def _parquet(demo: Demo) -> Iterator[Path]:
    return (demo.directory / "objects").rglob("*.parquet")
