from __future__ import annotations

import pytest

from app.venues.coinbase import Coinbase
from tests.support.rest import Traded

TRADES = "/products/ETH-USD/trades"


@pytest.fixture
def traded() -> Traded:
    return Traded(Coinbase, "ETH-USD")


def test_a_trade_of_the_stream_is_found_below_the_next_id(traded: Traded) -> None:
    for said in traded.frames("matches:ETH-USD"):
        (found,) = traded.get(TRADES, after=said["trade_id"] + 1, limit=1)
        assert found == {key: said[key] for key in ("trade_id", "side", "size", "price", "time")}


def test_pages_by_cb_after_give_every_trade_once_newest_first(traded: Traded) -> None:
    found, after = [], {}
    while True:
        status, page, headers = traded.ask(TRADES, limit=7, **after)
        assert status == 200
        if not page:
            break
        assert (int(headers["CB-BEFORE"]), int(headers["CB-AFTER"])) == (page[0]["trade_id"], page[-1]["trade_id"])
        after = {"after": headers["CB-AFTER"]}
        found += [one["trade_id"] for one in page]
    assert found == [one.id for one in traded.trades][::-1]


def test_before_shows_the_newest_that_are_newer(traded: Traded) -> None:
    ids = [one.id for one in traded.trades]
    assert [one["trade_id"] for one in traded.get(TRADES, before=ids[-4])] == ids[:-4:-1]
    assert [one["trade_id"] for one in traded.get(TRADES, before=ids[0], limit=2)] == ids[:-3:-1]
    assert traded.get(TRADES, before=ids[-1]) == []


def test_what_is_wrong_is_refused(traded: Traded) -> None:
    assert traded.ask("/products/NO-SUCH/trades")[:2] == (404, {"message": "NotFound"})
    assert traded.ask(TRADES, limit=1001)[0] == traded.ask(TRADES, after="x")[0] == 400
    assert traded.ask("/products/ETH-USD/book", level=3)[0] == 400


def test_the_book_of_level_2_is_whole_and_that_of_level_1_the_touch(traded: Traded) -> None:
    market = traded.market
    book = traded.get("/products/ETH-USD/book", level=2)
    assert (len(book["bids"]), len(book["asks"])) == (len(market.bids.keys), len(market.asks.keys))
    assert book["sequence"] == market.sequence
    touch = traded.get("/products/ETH-USD/book")
    assert (touch["bids"], touch["asks"]) == (book["bids"][:1], book["asks"][:1])
    (snapshot,) = traded.venue.topic("level2_batch:ETH-USD", traded.now_us).opening(traded.now_us)  # type: ignore[union-attr]
    assert f'"{book["bids"][3][0]}","{book["bids"][3][1]}"' in snapshot.text
