"""The dashboard over a real installation: what the API tells is what was sent, and pages show what the API tells."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from app.books.change import Row
from app.books.rebuild import Rebuild
from app.books.trade import TRADES
from app.model import TRADE
from app.pipeline import periodic
from tests.support.browser import Viewer
from tests.support.dashboard import Dashboard, WebProcess
from tests.support.path import NEVER, until

MARKETS = {"binance": ["btcusdt"], "coinbase": ["BTC-USD"], "okx": ["BTC-USDT", "ETH-USDT"], "bybit": ["BTCUSDT"]}
#: Planned, and nobody has it: what it says of itself is up to the test.
IDLE = "bybit-0-orderbook.trade"
HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>'

#: Price and size of a trade `n` on the page.
NUMBERS = "[...n.querySelectorAll('span')].slice(2).map(s => Number(s.textContent.replaceAll(',', '')))"


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    made = Dashboard(tmp_path_factory.mktemp("dashboard"), MARKETS, "binance", "coinbase", "okx")
    yield made
    made.close()


@pytest.fixture
def viewer(dashboard: Dashboard, browser: Any) -> Iterator[Viewer]:
    opened = Viewer(browser, dashboard.web.base)
    yield opened
    opened.close()


@pytest.fixture
def halted(dashboard: Dashboard) -> Iterator[Dashboard]:
    """The exchanges say nothing meanwhile, and everything they said has been pushed."""
    dashboard.exchanges.halt()
    sent = dashboard.exchanges.sent()
    pushed = [(e["venue"], e["symbol"], e["feed"]) for e in sent if e["venue"] != "bybit"]
    assert pushed
    last = -1
    while last != (last := dashboard.collecting.frames()):
        threading.Event().wait(0.4)
    yield dashboard
    dashboard.exchanges.resume()


def followed(page: Any, condition: Callable[[], bool], what: str) -> None:
    """Wait for the page without keeping its events from it."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"the page never showed: {what}")


def book_of(sent: list[dict[str, Any]], exchange: str, symbol: str) -> tuple[list[list[str]], list[list[str]]]:
    """Bids and asks, best first, after everything an exchange says it sent of a market's book."""
    rebuild = Rebuild(exchange, symbol)
    for number, entry in enumerate(sent):
        if (entry["venue"], entry["symbol"], entry["feed"]) == (exchange, symbol, "orderbook"):
            rebuild.apply(Row(str(number), number, None, entry["data"], "e" * 32))
    assert rebuild.book is not None
    sides = rebuild.book.bids, rebuild.book.asks
    bids, asks = ([[f"{price:f}", f"{size:f}"] for price, size in side.top(200)] for side in sides)
    return bids, asks


@pytest.mark.parametrize(("exchange", "symbol"), [("binance", "btcusdt"), ("coinbase", "BTC-USD"), ("okx", "BTC-USDT")])
def test_the_book_and_the_trades_of_the_api_are_those_that_were_sent(
    halted: Dashboard, exchange: str, symbol: str
) -> None:
    sent = halted.exchanges.sent()
    told = halted.web.json(f"/api/market/{exchange}/{symbol}")
    bids, asks = book_of(sent, exchange, symbol)
    assert (told["book"]["state"], told["book"]["bids"], told["book"]["asks"]) == ("live", bids, asks)
    assert float(told["book"]["spread"]) == pytest.approx(float(asks[0][0]) - float(bids[0][0]))
    trades = [
        TRADES[exchange](e["data"]) for e in sent if (e["venue"], e["symbol"], e["feed"]) == (exchange, symbol, TRADE)
    ]
    shown = [(t["price"], t["size"], t["taker"]) for t in told["trades"]]
    assert shown == [(f"{t.price:f}", f"{t.size:f}", t.taker) for t in trades][-60:]
    assert {feed["feed"] for feed in told["feeds"]} == {"orderbook", "trade"}
    assert told["latency"]["trade"]["events"] > 0


@pytest.mark.exhaustive
def test_a_book_whose_snapshot_is_archived_and_removed_is_still_shown(dashboard: Dashboard) -> None:
    wiring = dashboard.rig.wiring()
    for _ in range(2):
        flushed = periodic.flush(wiring, NEVER, deadline_s=None, seal=True)
        assert flushed["failed"] == {}
    assert periodic.archive(wiring, NEVER, final=True)["failed"] == {}
    held = [entry.state for entry in wiring.ledger.segments()]
    assert "removed" in held
    path = "/api/market/okx/ETH-USDT"
    told = until(lambda: (t := dashboard.web.json(path))["book"]["state"] == "live" and t, "the book from objects", 30)
    assert len(told["book"]["bids"]) > 100 and float(told["book"]["spread"]) > 0
    assert told["gaps"] == []


def live(dashboard: Dashboard) -> list[bytes]:
    """Channels that somebody listens to."""
    found: list[bytes] = dashboard.wiring.redis.pubsub_channels(f"{dashboard.rig.prefix}:tap:*")
    return found


def test_a_market_that_nobody_plans_is_a_404_with_words(dashboard: Dashboard) -> None:
    for path in ("/api/market/okx/DOGE-USDT", "/api/market/okx/DOGE-USDT/stream", "/api/market/nobody/BTC-USDT"):
        answer = dashboard.web.get(path)
        assert answer.status_code == 404 and "[[markets]]" in answer.json()["error"]
    assert b"okx" not in b"".join(c for c in live(dashboard) if b"DOGE" in c)


def test_the_overview_tells_every_feed_and_every_arrow(dashboard: Dashboard) -> None:
    told = dashboard.web.json("/api/overview")
    assert {(m["exchange"], m["symbol"]) for m in told["markets"]} == {
        (exchange, symbol) for exchange, symbols in MARKETS.items() for symbol in symbols
    }
    for market in told["markets"]:
        assert [feed["feed"] for feed in market["feeds"]] == ["orderbook", "trade"]
        for feed in market["feeds"]:
            if market["exchange"] == "bybit":
                assert (feed["state"], feed["age_s"]) == ("down", None)
            else:
                assert feed["state"] in ("live", "quiet") and 0 <= feed["age_s"] < 30 and feed["gaps_open"] == 0
    assert [(a["from"], a["to"]) for a in told["arrows"]] == [
        ("venue", "stream"), ("stream", "redis"), ("redis", "segment"), ("segment", "object"), ("object", "store"),
    ]  # fmt: skip
    assert told["arrows"][0]["backlog"] == 1, "one connection of the plan is not open"
    depths = dashboard.wiring.buffer.depths()
    assert told["arrows"][2]["backlog_unit"] == "events in lists" and sum(d.events for d in depths) > 0
    assert told["health"]["connections"] == {"up": 3, "total": 4}
    assert dashboard.web.json("/api/markets")["markets"] == [
        {"exchange": exchange, "symbol": symbol} for exchange in sorted(MARKETS) for symbol in sorted(MARKETS[exchange])
    ]


def test_the_overview_page_shows_what_the_api_tells_and_goes_on(dashboard: Dashboard, viewer: Viewer) -> None:
    page = viewer.open("/", ".market .tile")
    told = dashboard.web.json("/api/overview")
    shown = page.eval_on_selector_all(
        ".market",
        "all => all.map(n => [n.getAttribute('href'), ...[...n.querySelectorAll('.mark')].map(m => m.dataset.state)])",
    )
    assert [entry[0] for entry in shown] == [f"/market/{m['exchange']}/{m['symbol']}" for m in told["markets"]]
    assert [e[1:] for e in shown if "bybit" in e[0]] == [["down", "down"]]
    assert page.inner_text("#health").startswith(f"{told['health']['status']} 3/4")
    first = page.get_attribute("main", "data-now-us")
    followed(page, lambda: page.get_attribute("main", "data-now-us") != first, "another second")
    followed(page, lambda: "/s" in page.inner_text('.arrow[data-to="redis"] b'), "a rate")
    assert viewer.faults() == []


def test_the_market_page_shows_the_book_and_the_trades_of_the_api(halted: Dashboard, viewer: Viewer) -> None:
    page = viewer.open("/market/okx/BTC-USDT", ".trade")
    told = halted.web.json("/api/market/okx/BTC-USDT")
    prices = page.eval_on_selector_all(
        ".rung .price", "nodes => nodes.map(n => Number(n.textContent.replaceAll(',', '')))"
    )
    asks, bids = ([float(price) for price, _ in told["book"][side]] for side in ("asks", "bids"))
    half = len(prices) // 2
    assert prices == asks[:half][::-1] + bids[:half]
    rows = page.eval_on_selector_all(".trade", f"all => all.map(n => [n.className, ...{NUMBERS}])")
    newest = told["trades"][::-1][: len(rows)]
    assert rows == [[f"trade {t['taker']}", float(t["price"]), float(t["size"])] for t in newest]
    assert page.locator("canvas").count() == 2, "depth, mid and spread"
    halted.exchanges.resume()
    followed(page, lambda: page.get_attribute(".trade", "title") != f"id {newest[0]['id']}", "a newer trade")
    halted.exchanges.halt()
    assert viewer.faults() == []


SHOWN = """async () => {
  const f = await import('/static/lib/format.js');
  return {
    age: [0, 0.44, 12, 119, 600, 7200, 200000, null].map(f.age),
    bytes: [0, 999, 1000, 1234567, 99.96e6, 5e12, null].map(f.bytes),
    rate: [f.rate(0.5), f.rate(12.34, 'events'), f.rate(1204.4), f.rate(null)],
    ms: [0.42, 51.4, 1234, null].map(f.milliseconds),
    time: [f.time(1790000000123456), f.time(1790000000123456, { date: true, ms: true, zone: true }), f.time(null)],
  };
}"""


def test_every_number_is_shown_with_its_unit_and_every_time_in_utc(dashboard: Dashboard, viewer: Viewer) -> None:
    page = viewer.open("/", ".market")
    assert page.evaluate(SHOWN) == {
        "age": ["0.0 s", "0.4 s", "12 s", "119 s", "10 min", "2.0 h", "2.3 d", "–"],
        "bytes": ["0 B", "999 B", "1.0 kB", "1.2 MB", "100 MB", "5.0 TB", "–"],
        "rate": ["0.50 /s", "12.3 events /s", "1,204 /s", "–"],
        "ms": ["0.4 ms", "51 ms", "1.2 s", "–"],
        "time": ["14:13:20", "2026-09-21 14:13:20.123 UTC", "–"],
    }


@pytest.mark.exhaustive
def test_pages_fit_a_phone_in_both_schemes_and_the_choice_is_kept(dashboard: Dashboard, browser: Any) -> None:
    grounds = []
    for scheme in ("dark", "light"):
        phone = Viewer(browser, dashboard.web.base, viewport={"width": 390, "height": 844}, color_scheme=scheme)
        for path, shown in (("/", ".market"), ("/market/okx/BTC-USDT", ".rung")):
            page = phone.open(path, shown)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.click("#theme")
        page.reload()
        page.wait_for_selector(".rung")
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert phone.faults() == []
        phone.close()
    dark, light = grounds[0], grounds[3]
    assert dark != light and grounds == [dark, dark, light, light, light, dark]


def test_a_market_is_found_by_the_key_and_an_unknown_one_is_said(dashboard: Dashboard, viewer: Viewer) -> None:
    page = viewer.open("/", ".market")
    page.keyboard.press("/")
    page.wait_for_selector("dialog[open] li a")
    page.keyboard.type("okx eth")
    page.wait_for_function("document.querySelectorAll('#finder-found li').length === 1")
    page.keyboard.press("Enter")
    page.wait_for_selector(".rung")
    assert page.url.endswith("/market/okx/ETH-USDT")
    page.go_back()
    page.wait_for_selector(".market")
    assert viewer.faults() == []
    page = viewer.open("/market/okx/NOPE", ".fault")
    assert "no [[markets]] of the settings names okx NOPE" in page.inner_text("main")


def test_what_a_venue_says_is_shown_as_text_whatever_it_is(dashboard: Dashboard, viewer: Viewer) -> None:
    feed = {
        "symbol": "BTCUSDT",
        "feed": "trade",
        "state": "rejected",
        "since_us": 1,
        "why": HOSTILE,
        "age_s": 1,
        "interval_s": None,
    }
    state = {
        "stream": IDLE, "exchange": "bybit", "connection": "closed", "since_us": 1, "why": HOSTILE, "last_error": HOSTILE,
        "refused": 0, "feeds": [feed], "ends": [[1_790_000_000_000_000, "close_frame", HOSTILE]],
    }  # fmt: skip
    dashboard.wiring.board.publish(IDLE, state, 60)
    try:
        page = viewer.open("/", ".market")
        followed(page, lambda: HOSTILE in page.inner_text(".ends"), "the venue's words")
        assert HOSTILE in page.inner_text('a.market[href="/market/bybit/BTCUSDT"]')
        assert page.locator("main img, main script").count() == 0
        page = viewer.open("/market/bybit/BTCUSDT", ".rung")
        assert page.get_attribute(".chip >> nth=1", "title") == HOSTILE
        assert viewer.faults() == []
    finally:
        dashboard.wiring.redis.delete(f"{dashboard.rig.prefix}:state:{IDLE}")


def test_pages_grey_out_while_redis_is_away_and_come_back(dashboard: Dashboard, viewer: Viewer, browser: Any) -> None:
    other = Viewer(browser, dashboard.web.base)
    pages = [viewer.open("/", ".market"), other.open("/market/okx/BTC-USDT", ".rung")]
    for page in pages:
        assert page.locator("body[data-stale]").count() == 0
    dashboard.redis.freeze()
    try:
        for page in pages:
            page.wait_for_selector("body[data-stale]")
            assert "What you see is old" in page.inner_text("#notice")
        followed(pages[0], lambda: "Redis is away" in pages[0].inner_text("#notice"), "why")
        assert dashboard.web.get("/api/overview").status_code == 503
        assert "Redis" in dashboard.web.get("/api/overview").json()["error"]
    finally:
        dashboard.redis.thaw()
    for page in pages:
        page.wait_for_selector("body:not([data-stale])")
        now = page.get_attribute("main", "data-now-us")
        followed(page, lambda page=page, now=now: page.get_attribute("main", "data-now-us") != now, "new figures")
    assert viewer.faults(outage=True) == other.faults(outage=True) == []
    other.close()


@pytest.mark.exhaustive
def test_a_web_process_that_is_stopped_sends_its_viewers_away_and_they_come_back(
    dashboard: Dashboard, viewer: Viewer
) -> None:
    page = viewer.open("/", ".market")
    code, seconds = dashboard.web.stop()
    assert code == 0 and seconds < 10, "no viewer keeps it from ending"
    page.wait_for_selector("body[data-stale]")
    assert "does not answer" in page.inner_text("#notice")
    dashboard.web.start()
    page.wait_for_selector("body:not([data-stale])")
    assert viewer.faults(outage=True) == []


@pytest.mark.exhaustive
def test_an_address_that_others_can_reach_wants_the_token_and_pages_work_with_it(
    dashboard: Dashboard, browser: Any
) -> None:
    token = "sixteen-characters-and-more"
    secret = dashboard.rig.directory / "token"
    secret.write_text(token + "\n")
    secret.chmod(0o600)
    web = WebProcess(dashboard.rig, "0.0.0.0", COLLECTOR_WEB__TOKEN_FILE=str(secret))
    try:
        assert [web.get(path).status_code for path in ("/health", "/ready", "/", "/api/overview", "/metrics")] == [
            200, 503, 401, 401, 401,
        ]  # fmt: skip
        assert web.get("/metrics", authorization=f"Bearer {token}").status_code == 200
        assert httpx.post(f"{web.base}/", trust_env=False).status_code == 405
        opened = Viewer(browser, web.base, http_credentials={"username": "anybody", "password": token})
        page = opened.open("/market/okx/BTC-USDT", ".rung")
        now = page.get_attribute("main", "data-now-us")
        followed(page, lambda: page.get_attribute("main", "data-now-us") != now, "live events behind the token")
        assert [e for e in opened.faults() if "401" not in e] == []
        opened.close()
        log = (dashboard.rig.directory / f"web-{web.port}.log").read_text()
        assert token not in log
    finally:
        web.stop()


def test_every_answer_has_the_policy_and_streams_are_bounded(dashboard: Dashboard) -> None:
    for path in ("/", "/static/main.js", "/api/overview", "/nothing", "/health"):
        headers = dashboard.web.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert dashboard.web.get("/static/../application.py").status_code == 404
    assert dashboard.web.get("/static/%2e%2e/application.py").status_code == 404
    assert dashboard.web.get("/api/overview", host="evil.example").status_code == 403
    limits = httpx.Limits(max_connections=64)
    with httpx.Client(base_url=dashboard.web.base, trust_env=False, timeout=30, limits=limits) as client:
        opened = [client.send(client.build_request("GET", "/api/stream"), stream=True) for _ in range(33)]
        assert sorted(answer.status_code for answer in opened) == [200] * 32 + [503]
        refused = next(answer for answer in opened if answer.status_code == 503)
        assert "32 viewers" in msgspec.json.decode(refused.read())["error"]
        for answer in opened:
            answer.close()
    until(lambda: streams(dashboard.web) == 200, "seats are free again")


def streams(web: WebProcess) -> int:
    """Status of one more viewer."""
    with httpx.stream("GET", f"{web.base}/api/stream", trust_env=False, timeout=10) as answer:
        return answer.status_code
