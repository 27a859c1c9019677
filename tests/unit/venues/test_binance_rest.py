from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

import pytest

from app.venues.binance import Binance
from tests.support.rest import Traded

HISTORY, AGGREGATES, RECENT = "/api/v3/historicalTrades", "/api/v3/aggTrades", "/api/v3/trades"


@pytest.fixture
def traded() -> Traded:
    return Traded(Binance, "btcusdt")


def test_a_trade_of_the_stream_is_found_by_its_id(traded: Traded) -> None:
    for frame in traded.frames("btcusdt@trade"):
        said = frame["data"]
        (found,) = traded.get(HISTORY, symbol="BTCUSDT", fromId=said["t"], limit=1)
        exact = Decimal(said["p"]) * Decimal(said["q"])
        assert Decimal(found.pop("quoteQty")) == exact.quantize(Decimal("1e-8"), ROUND_DOWN)
        assert found == {
            "id": said["t"], "price": said["p"], "qty": said["q"], "time": said["T"],
            "isBuyerMaker": said["m"], "isBestMatch": True,
        }  # fmt: skip


def test_pages_from_an_id_give_every_trade_once_in_order(traded: Traded) -> None:
    wanted, found = [one.id for one in traded.trades], [traded.trades[0].id]
    while page := traded.get(HISTORY, symbol="BTCUSDT", fromId=found[-1] + 1, limit=7):
        assert len(page) <= 7
        found += [one["id"] for one in page]
    assert found == wanted
    assert [one["id"] for one in traded.get(HISTORY, symbol="BTCUSDT", limit=5)] == wanted[-5:]
    assert [one["id"] for one in traded.get(RECENT, symbol="BTCUSDT", limit=5, fromId=wanted[0])] == wanted[-5:]


def test_aggregates_count_one_by_one_and_name_the_trades_they_stand_for(traded: Traded) -> None:
    listed = traded.get(AGGREGATES, symbol="BTCUSDT", limit=1000)
    assert [one["f"] for one in listed] == [one["l"] for one in listed] == [one.id for one in traded.trades]
    numbers = [one["a"] for one in listed]
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))] and numbers[0] != listed[0]["f"]
    assert traded.get(AGGREGATES, symbol="BTCUSDT", fromId=numbers[3], limit=4) == listed[3:7]


def test_aggregates_of_a_time(traded: Traded) -> None:
    listed = traded.get(AGGREGATES, symbol="BTCUSDT", limit=1000)
    start, end = listed[5]["T"], listed[-5]["T"]
    wanted = [one for one in listed if start <= one["T"] <= end]
    assert traded.get(AGGREGATES, symbol="BTCUSDT", startTime=start, endTime=end) == wanted
    assert traded.get(AGGREGATES, symbol="BTCUSDT", startTime=start, limit=3) == wanted[:3]
    assert traded.ask(AGGREGATES, symbol="BTCUSDT", startTime=0, endTime=3_600_001)[1]["code"] == -1127


@pytest.mark.parametrize(
    ("query", "code"),
    [({}, -1102), ({"symbol": "btcusdt"}, -1121), ({"symbol": "NOSUCH"}, -1121), ({"symbol": "BTCUSDT", "limit": "0"}, -1100),
     ({"symbol": "BTCUSDT", "fromId": "x"}, -1100)],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_the_venues_code(traded: Traded, query: dict[str, str], code: int) -> None:
    status, body, _ = traded.ask(HISTORY, **query)
    assert (status, body["code"]) == (400, code)


def test_a_book_joins_the_diffs(traded: Traded) -> None:
    book = traded.get("/api/v3/depth", symbol="BTCUSDT", limit=1000)
    first = traded.frames("btcusdt@depth@100ms", 1)[0]["data"]
    assert first["U"] == book["lastUpdateId"] + 1
