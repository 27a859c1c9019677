from __future__ import annotations

from decimal import Decimal

import pytest

from app.venues.okx import Okx
from tests.support.rest import Traded

HISTORY, RECENT, BOOK = "/api/v5/market/history-trades", "/api/v5/market/trades", "/api/v5/market/books"
BTC = "BTC-USDT"


@pytest.fixture
def traded() -> Traded:
    return Traded(Okx, BTC)


def test_the_executions_of_a_row_are_single_trades_that_add_up_to_it(traded: Traded) -> None:
    rows = [row for frame in traded.frames(f"trades:{BTC}") for row in frame["data"]]
    assert {int(row["count"]) for row in rows} == {1, 2, 3}
    for row in rows:
        last, count = int(row["tradeId"]), int(row["count"])
        single = traded.get(HISTORY, instId=BTC, type=1, after=last + 1, limit=count)["data"]
        assert [int(one["tradeId"]) for one in single] == [*range(last, last - count, -1)]
        assert sum(Decimal(one["sz"]) for one in single) == Decimal(row["sz"])
        assert {(one["px"], one["side"], one["ts"]) for one in single} == {(row["px"], row["side"], row["ts"])}
        assert all(Decimal(one["sz"]) > 0 for one in single)


def test_pages_by_after_give_every_execution_once(traded: Traded) -> None:
    last = traded.trades[-1].id
    found: list[int] = []
    after: dict[str, object] = {}
    while page := traded.get(HISTORY, instId=BTC, limit=10, **after)["data"]:
        found += [int(one["tradeId"]) for one in page]
        after = {"after": found[-1]}
    first = traded.trades[0]
    assert found == [*range(last, first.id - first.executions, -1)]


def test_before_alone_shows_the_newest_and_type_2_pages_by_time(traded: Traded) -> None:
    ids = [int(one["tradeId"]) for one in traded.get(RECENT, instId=BTC, limit=500)["data"]]
    newest = traded.get(HISTORY, instId=BTC, before=ids[-1], limit=3)["data"]
    assert [int(one["tradeId"]) for one in newest] == ids[:3]
    middle = traded.trades[30].time_us // 1000
    older = traded.get(HISTORY, instId=BTC, type=2, after=middle, limit=100)["data"]
    assert older and all(int(one["ts"]) < middle for one in older)


def test_the_limits_are_those_of_the_venue(traded: Traded) -> None:
    assert len(traded.get(HISTORY, instId=BTC, limit=1000)["data"]) == 100
    assert len(traded.get(RECENT, instId=BTC, limit=1000)["data"]) > 100
    assert len(traded.get(BOOK, instId=BTC)["data"][0]["asks"]) == 1, "sz is 1 unless said otherwise"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({}, 400, "50014"),
        ({"instId": "NO-SUCH"}, 200, "51001"),
        ({"instId": BTC, "limit": "x"}, 400, "51000"),
        ({"instId": BTC, "type": "3"}, 400, "51000"),
    ],
)
def test_a_wrong_request_is_refused_with_the_venues_code(
    traded: Traded, query: dict[str, str], status: int, code: str
) -> None:
    answered = traded.ask(HISTORY, **query)
    assert (answered[0], answered[1]["code"]) == (status, code)


def test_updates_join_the_book_by_its_seq_id(traded: Traded) -> None:
    book = traded.get(BOOK, instId=BTC, sz=400)["data"][0]
    first = next(frame["data"][0] for frame in traded.frames(f"books:{BTC}"))
    assert first["prevSeqId"] <= book["seqId"] < first["seqId"]
    assert len(book["asks"]) == 400 and all(len(level) == 4 for level in book["asks"])
