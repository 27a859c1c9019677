"""Answers as the venues document them: texts sliced untouched, refusals told apart."""

from __future__ import annotations

import pytest

from app.errors import FrameRejected
from app.exchanges.history import HISTORIES
from app.exchanges.history.base import Ask, Between, Page, Past, Refused
from app.exchanges.history.upbit import LIMIT, UpbitHistory

DAY_US = 86_400 * 1_000_000
#: 2026-09-21T14:13:20Z
NOW_US = 1_790_000_000_000_000


def between(symbol: str, older: object, newer: object, older_us: int = NOW_US, newer_us: int = NOW_US) -> Between:
    return Between(symbol, str(older), str(newer), older_us, newer_us)


def read(name: str, wanted: Between, status: int, body: str, ask: Ask | None = None) -> Page | Refused:
    history = HISTORIES[name, None]
    return history.read(wanted, ask or history.first(wanted, NOW_US), status, body.encode(), NOW_US)


def test_each_venue_is_asked_as_it_documents() -> None:
    asked = {
        name: HISTORIES[name, None].first(between(symbol, 100, 104), NOW_US).path
        for name, symbol in (
            ("binance", "btcusdt"), ("coinbase", "BTC-USD"), ("upbit", "KRW-BTC"), ("okx", "BTC-USDT"), ("bybit", "BTCUSDT"),
        )
    }  # fmt: skip
    assert asked == {
        "binance": "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=101&limit=3",
        "coinbase": "/products/BTC-USD/trades?after=104&limit=3",
        "upbit": "/v1/trades/ticks?market=KRW-BTC&count=500&cursor=104",
        "okx": "/api/v5/market/history-trades?instId=BTC-USDT&type=1&after=104&limit=100",
        "bybit": "/v5/market/recent-trade?category=spot&symbol=BTCUSDT&limit=60",
    }


TEXT = '{"id": 101, "price":"4.00000100", "qty":"12.0", "time":1789999999000, "isBuyerMaker":true,"x":{"y":[1 ]}}'


def test_the_text_of_a_trade_is_a_slice_of_the_answer() -> None:
    page = read("binance", between("btcusdt", 100, 102), 200, f"[ {TEXT} ]")
    assert page == Page((Past("101", 1_789_999_999_000_000, TEXT, 101, 101),), reached=True)


@pytest.mark.parametrize(
    ("name", "symbol", "status", "body", "gone"),
    [
        ("binance", "btcusdt", 400, '{"code":-1121,"msg":"Invalid symbol."}', True),
        ("coinbase", "BTC-USD", 404, '{"message":"NotFound"}', True),
        ("coinbase", "BTC-USD", 403, "<html>", False),
        ("upbit", "KRW-BTC", 404, '{"error":{"name":404,"message":"Code not found"}}', True),
        ("upbit", "KRW-BTC", 400, '{"error":{"name":400,"message":"invalid parameter"}}', False),
        ("okx", "BTC-USDT", 200, '{"code":"51001","msg":"Instrument ID doesn\'t exist.","data":[]}', True),
        ("okx", "BTC-USDT", 451, "", False),
        ("bybit", "BTCUSDT", 200, '{"retCode":10001,"retMsg":"Not supported symbols","result":{}}', True),
        ("bybit", "BTCUSDT", 200, '{"retCode":10001,"retMsg":"params error: Limit is invalid","result":{}}', False),
        ("bybit", "BTCUSDT", 403, "The Amazon CloudFront distribution is configured to block access", False),
    ],
)
def test_only_a_market_that_is_gone_is_not_asked_for_again(
    name: str, symbol: str, status: int, body: str, gone: bool
) -> None:
    found = read(name, between(symbol, 100, 104), status, body)
    assert isinstance(found, Refused)
    assert (found.gone, found.stay_away_s) == (gone, 0.0)
    assert str(status) in found.words
    assert ("does not serve this place" in found.words) == (status in (403, 451))


def test_too_many_requests_in_a_venues_own_words_keeps_everybody_away() -> None:
    okx = read("okx", between("BTC-USDT", 1, 9), 429, '{"code":"50011","msg":"Too Many Requests","data":[]}')
    bybit = read("bybit", between("BTCUSDT", 1, 9), 200, '{"retCode":10006,"retMsg":"Too many visits","result":{}}')
    banned = read("bybit", between("BTCUSDT", 1, 9), 403, "access too frequent")
    assert [isinstance(one, Refused) and one.stay_away_s for one in (okx, bybit, banned)] == [2.0, 5.0, 600.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_binance_is_asked_for_aggregates_where_it_serves_no_single_trades(status: int) -> None:
    page = read("binance", between("btcusdt", 100, 104), status, '{"code":-2014,"msg":"API-key format invalid."}')
    start = NOW_US // 1000 - 60_000
    assert page == Page(next=Ask(f"/api/v3/aggTrades?symbol=BTCUSDT&startTime={start}&limit=1000"))
    assert isinstance(page, Page)
    again = read("binance", between("btcusdt", 100, 104), 403, "<html>", page.next)
    assert isinstance(again, Refused) and "does not serve" in again.words


def test_an_aggregate_of_one_trade_is_that_trade_and_too_late_a_start_goes_back() -> None:
    ask = Ask("/api/v3/aggTrades?")
    rows = '[{"a":40,"f":110,"l":110,"T":1789999999000},{"a":41,"f":111,"l":113,"T":1789999999000}]'
    late = read("binance", between("btcusdt", 100, 115), 200, rows, ask)
    assert late == Page(next=Ask("/api/v3/aggTrades?symbol=BTCUSDT&fromId=30&limit=1000", 0, "back"))
    found = read("binance", between("btcusdt", 109, 114), 200, rows, ask)
    assert isinstance(found, Page) and found.reached
    assert [(trade.sequence_id, trade.first, trade.last) for trade in found.trades] == [
        ("110", 110, 110),
        ("111-113", 111, 113),
    ]


def test_trades_of_another_year_are_of_another_exchange() -> None:
    body = '[{"trade_id":101,"size":"1","price":"1","time":"2014-11-07T22:19:28.578544Z"}]'
    with pytest.raises(FrameRejected, match="rest_url"):
        read("coinbase", between("BTC-USD", 100, 102), 200, body)


@pytest.mark.parametrize("name", ["binance", "coinbase", "upbit", "okx", "bybit"])
@pytest.mark.parametrize("body", ["", "{}x", "[1]", '{"code":0}', "[" * 2000])
def test_what_is_no_answer_is_rejected(name: str, body: str) -> None:
    with pytest.raises(FrameRejected):
        read(name, between("BTC-USD", 100, 102), 200, body)


# Upbit: by cursor and day, until the known trade is met


def tick(number: int, at_us: int) -> str:
    return f'{{"market":"KRW-BTC","timestamp":{at_us // 1000},"trade_price":1.0,"sequential_id":{number}}}'


def upbit(wanted: Between, ask: Ask, *rows: str, now_us: int = NOW_US) -> Page:
    page = UpbitHistory().read(wanted, ask, 200, f"[{','.join(rows)}]".encode(), now_us)
    assert isinstance(page, Page)
    return page


def test_upbit_is_walked_until_the_trade_before_the_seam_comes() -> None:
    wanted = between("KRW-BTC", 500, 900, NOW_US - 10_000_000, NOW_US)
    ask = UpbitHistory().first(wanted, NOW_US)
    before_us = NOW_US - 10_000_000
    page = upbit(
        wanted, ask, tick(800, NOW_US - 1_000_000), tick(600, NOW_US - 9_000_000), tick(500, before_us),
        tick(490, before_us - 4_000_000), tick(400, before_us - 6_000_000),
    )  # fmt: skip
    assert page.reached and page.next is None
    assert [trade.sequence_id for trade in page.trades] == ["800", "600", "500", "490"], "and what is out of order"


def test_upbit_goes_on_below_a_full_page_and_then_a_day_back() -> None:
    midnight_us = NOW_US // DAY_US * DAY_US
    wanted = between("KRW-BTC", 5, 9_000, midnight_us - 5_000_000, midnight_us + 5_000_000)
    ask = UpbitHistory().first(wanted, NOW_US)
    full = upbit(wanted, ask, *(tick(8_000 - n, midnight_us + 4_000_000) for n in range(LIMIT)))
    assert full.next == Ask("/v1/trades/ticks?market=KRW-BTC&count=500&cursor=7501", 7501, "0")
    assert full.next is not None
    rest = upbit(wanted, full.next, tick(7_000, midnight_us + 1_000_000))
    assert rest.next == Ask("/v1/trades/ticks?market=KRW-BTC&count=500&cursor=7000&days_ago=1", 7000, "1")
    assert rest.next is not None
    last = upbit(wanted, rest.next, tick(6_000, midnight_us - 1_000_000), tick(5, midnight_us - 5_000_000))
    assert last.reached


def test_upbit_says_when_the_known_trade_is_not_there() -> None:
    wanted = between("KRW-BTC", 5, 900, NOW_US - 9 * DAY_US, NOW_US - 8 * DAY_US)
    ask = UpbitHistory().first(wanted, NOW_US)
    assert ask.path.endswith("&days_ago=7")
    page = upbit(wanted, ask)
    assert (page.next, page.reached, page.words) == (None, False, "trade 5 is not among those of seven days")
    near = between("KRW-BTC", 5, 900, NOW_US, NOW_US)
    passed = upbit(near, UpbitHistory().first(near, NOW_US), tick(800, NOW_US), tick(4, NOW_US - 61_000_000))
    assert not passed.reached and [trade.sequence_id for trade in passed.trades] == ["800"]


# Bybit: sixty trades


def test_bybit_tells_what_came_after_the_known_trade_or_nothing() -> None:
    rows = ",".join(
        f'{{"execId":"{2290000000050703789 - n}","time":"{NOW_US // 1000 - n}","seq":"1"}}' for n in range(5)
    )
    body = f'{{"retCode":0,"retMsg":"OK","result":{{"category":"spot","list":[{rows}]}},"time":1}}'
    page = read("bybit", between("BTCUSDT", 2290000000050703786, 2290000000050703789), 200, body)
    assert isinstance(page, Page) and page.reached
    assert [trade.sequence_id for trade in page.trades] == [str(2290000000050703789 - n) for n in range(3)]
    far = read("bybit", between("BTCUSDT", 1, 2), 200, body)
    assert far == Page(words="trade 1 is not among the last 60, and it tells no more")
