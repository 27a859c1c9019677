from __future__ import annotations

import pytest

from app.venues.bybit import Bybit
from tests.support.rest import Traded

TRADES, BOOK = "/v5/market/recent-trade", "/v5/market/orderbook"
SPOT = {"category": "spot", "symbol": "BTCUSDT"}


@pytest.fixture
def traded() -> Traded:
    return Traded(Bybit, "BTCUSDT")


def test_the_last_60_trades_are_those_of_the_stream_newest_first(traded: Traded) -> None:
    rows = [row for frame in traded.frames("publicTrade.BTCUSDT", 80) for row in frame["data"]]
    listed = traded.get(TRADES, **SPOT)["result"]["list"]
    assert len(listed) == 60
    assert [
        {"i": one["execId"], "p": one["price"], "v": one["size"], "S": one["side"], "T": int(one["time"])}
        for one in listed[::-1]
    ] == [{key: row[key] for key in ("i", "p", "v", "S", "T")} for row in rows[-60:]]
    assert traded.get(TRADES, **SPOT, limit=3)["result"]["list"] == listed[:3]


def test_the_book_has_the_u_of_the_1000_level_topic(traded: Traded) -> None:
    last = traded.frames("orderbook.1000.BTCUSDT")[-1]
    book = traded.get(BOOK, **SPOT, limit=1000)["result"]
    assert (book["u"], book["seq"]) == (last["data"]["u"], last["data"]["seq"])
    assert len(traded.get(BOOK, **SPOT)["result"]["a"]) == 1, "limit is 1 unless said otherwise"


@pytest.mark.parametrize(
    "query", [{}, {"category": "spot", "symbol": "X"}, SPOT | {"limit": "61"}, SPOT | {"limit": "a"}]
)
def test_a_wrong_request_is_refused_inside_a_success(traded: Traded, query: dict[str, str]) -> None:
    assert traded.get(TRADES, **query)["retCode"] == 10001
