from __future__ import annotations

import pytest

from app.venues.upbit import Upbit
from tests.support.rest import NOW_US, Traded

TRADES, BOOK = "/v1/trades/ticks", "/v1/orderbook"
DAY_US = 86_400_000_000


@pytest.fixture
def traded() -> Traded:
    return Traded(Upbit, "KRW-BTC")


def test_a_trade_of_the_stream_is_found_below_the_next_id(traded: Traded) -> None:
    for said in traded.frames("trade:KRW-BTC:30:DEFAULT"):
        (found,) = traded.get(TRADES, market="KRW-BTC", cursor=said["sequential_id"] + 1)
        assert found == {
            "market": said["code"], "trade_date_utc": said["trade_date"], "trade_time_utc": said["trade_time"],
            "timestamp": said["trade_timestamp"], "trade_price": said["trade_price"],
            "trade_volume": said["trade_volume"], "prev_closing_price": said["prev_closing_price"],
            "change_price": said["trade_price"] - said["prev_closing_price"], "ask_bid": said["ask_bid"],
            "sequential_id": said["sequential_id"],
        }  # fmt: skip


def test_pages_by_cursor_give_every_trade_once_newest_first(traded: Traded) -> None:
    found: list[int] = []
    cursor: dict[str, object] = {}
    while page := traded.get(TRADES, market="KRW-BTC", count=7, **cursor):
        found += [one["sequential_id"] for one in page]
        cursor = {"cursor": found[-1]}
    assert found == [one.id for one in traded.trades][::-1]


def test_days_ago_and_to_choose_a_day_and_its_end(traded: Traded) -> None:
    traded.now_us += DAY_US
    everything = traded.get(TRADES, market="KRW-BTC", count=500)
    assert traded.get(TRADES, market="KRW-BTC", count=500, days_ago=1) == everything
    assert traded.get(TRADES, market="KRW-BTC", count=500, days_ago=2) == []
    assert NOW_US % DAY_US // 1_000_000 == 14 * 3600 + 13 * 60 + 20
    early = traded.get(TRADES, market="KRW-BTC", count=500, days_ago=1, to="14:13:21")
    assert early == [one for one in everything if one["trade_time_utc"] <= "14:13:21"] != everything
    assert traded.get(TRADES, market="KRW-BTC", count=500, days_ago=1, to="141321") == early


@pytest.mark.parametrize(
    ("query", "status"),
    [({}, 404), ({"market": "X"}, 404), ({"market": "KRW-BTC", "count": "501"}, 400),
     ({"market": "KRW-BTC", "days_ago": "8"}, 400), ({"market": "KRW-BTC", "to": "25:00:00"}, 400)],
)  # fmt: skip
def test_a_wrong_request_is_refused(traded: Traded, query: dict[str, str], status: int) -> None:
    answered = traded.ask(TRADES, **query)
    assert (answered[0], answered[1]["error"]["name"]) == (status, status)


def test_the_books_of_several_markets_are_those_of_the_stream(traded: Traded) -> None:
    first, second = traded.get(BOOK, markets="KRW-BTC,KRW-ETH")
    assert (first["market"], second["market"]) == ("KRW-BTC", "KRW-ETH")
    topic = traded.venue.topic("orderbook:KRW-BTC:30:DEFAULT", traded.now_us)
    assert topic is not None
    (frame,) = topic.opening(traded.now_us)
    assert (
        f'"orderbook_units":{frame.text.split(chr(34) + "orderbook_units" + chr(34) + ":")[1].split("]")[0]}]'
        in str(
            traded.venue.rest(BOOK, {"markets": "KRW-BTC"}, traded.now_us).body.decode()  # type: ignore[union-attr]
        )
    )
