import json
from typing import Any

import pytest

from app.venues.coinbase import LOGIN, Coinbase
from app.venues.dialect import Close, Event, Frame, Join, Leave, Send, say
from app.venues.market import ASK, BID, Change, Step, Trade

BIDS = [(8_399_990, 120_000_000), (8_399_950, 30_000_000)]
ASKS = [(8_400_010, 50_000_000), (8_400_100, 7)]
BOUGHT = Trade(42, 1, 8_400_010, 20_000_000, True, 1_790_000_000_122_456, 905)
STEP = Step([BOUGHT], [Change(ASK, 8_400_010, 30_000_000, 50_000_000), Change(BID, 8_399_950, 0, 30_000_000)])


def venue() -> Any:
    """BTC-USD comes second here, so that tests need not build its deep book."""
    listed = Coinbase.listing()
    return Coinbase({"ETH-USD": listed["ETH-USD"]} | listed, 7, 1_000)


def session(now_us: int) -> Any:
    return venue().session(1, {}, now_us)


def asked(now_us: int, **request: Any) -> Any:
    return list(session(now_us).received(json.dumps({"type": "subscribe"} | request), now_us))


def test_level2_opens_with_the_whole_book_then_tells_batches_of_changes(quote: Any, apply: Any, now_us: int) -> None:
    coinbase = venue()
    market = quote(coinbase, "BTC-USD", BIDS, ASKS)
    topic = coinbase.topic("level2_batch:BTC-USD", now_us)
    snapshot = (
        '{"type":"snapshot","product_id":"BTC-USD","asks":[["84000.10","0.50000000"],["84001.00","0.00000007"]],'
        '"bids":[["83999.90","1.20000000"],["83999.50","0.30000000"]]}'
    )
    assert topic.opening(now_us) == [Frame(snapshot, (Event("BTC-USD", "orderbook", None, snapshot),))]
    update = (
        '{"type":"l2update","product_id":"BTC-USD","changes":[["sell","84000.10","0.30000000"],'
        '["buy","83999.50","0.00000000"]],"time":"2026-09-21T14:13:20.123456Z"}'
    )
    assert topic.advance(apply(market, STEP), now_us) == [Frame(update, (Event("BTC-USD", "orderbook", None, update),))]


def test_matches_open_with_the_last_trade_and_name_the_makers_side(quote: Any, apply: Any, now_us: int) -> None:
    coinbase = venue()
    market = quote(coinbase, "BTC-USD", BIDS, ASKS)
    topic = coinbase.topic("matches:BTC-USD", now_us)
    (last,) = topic.opening(now_us)
    assert json.loads(last.text)["type"] == "last_match"
    assert (last.events[0].id, last.events[0].data) == ("41", last.text)
    (match,) = topic.advance(apply(market, STEP), now_us)
    maker, taker = (json.loads(match.text)[f"{party}_order_id"] for party in ("maker", "taker"))
    text = (
        f'{{"type":"match","trade_id":42,"maker_order_id":"{maker}","taker_order_id":"{taker}","side":"sell",'
        '"size":"0.20000000","price":"84000.10","product_id":"BTC-USD","sequence":905,'
        '"time":"2026-09-21T14:13:20.122456Z"}'
    )
    assert match == Frame(text, (Event("BTC-USD", "trade", "42", text),))
    assert maker != taker and [len(part) for part in maker.split("-")] == [8, 4, 4, 4, 12]


def test_a_heartbeat_comes_once_a_second_with_the_last_trade(quote: Any, now_us: int) -> None:
    coinbase = venue()
    quote(coinbase, "BTC-USD", BIDS, ASKS)
    topic = coinbase.topic("heartbeat:BTC-USD", now_us)
    text = (
        '{"type":"heartbeat","last_trade_id":41,"product_id":"BTC-USD","sequence":890,'
        '"time":"2026-09-21T14:13:20.123456Z"}'
    )
    assert topic.quiet(now_us) == [Frame(text)]
    assert topic.quiet(now_us + 999_999) == []
    assert len(topic.quiet(now_us + 1_000_000)) == 1


def test_the_first_product_of_the_listing_opens_with_more_than_a_mebibyte(now_us: int) -> None:
    coinbase: Any = Coinbase({"BTC-USD": Coinbase.listing()["BTC-USD"]}, 7, 1_000)
    (snapshot,) = coinbase.topic("level2_batch:BTC-USD", now_us).opening(now_us)
    assert len(snapshot.text) > 1 << 20


def test_each_request_is_answered_with_everything_subscribed_so_far(now_us: int) -> None:
    opened = session(now_us)
    first = '{"type":"subscribe","product_ids":["BTC-USD","ETH-USD"],"channels":["matches"]}'
    assert opened.received(first, now_us) == [
        say('{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD","ETH-USD"]}]}'),
        Join("matches:BTC-USD"),
        Join("matches:ETH-USD"),
    ]
    second = '{"type":"subscribe","channels":[{"name":"level2_batch","product_ids":["BTC-USD"]}]}'
    assert opened.received(second, now_us) == [
        say(
            '{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD","ETH-USD"]},'
            '{"name":"level2_batch","product_ids":["BTC-USD"]}]}'
        ),
        Join("level2_batch:BTC-USD"),
    ]
    third = '{"type":"unsubscribe","product_ids":["ETH-USD"],"channels":["matches"]}'
    assert opened.received(third, now_us)[1:] == [Leave("matches:ETH-USD")]


@pytest.mark.parametrize(
    ("request_of", "reason"),
    [
        ({"product_ids": ["FOO-BAR", "BTC-USD"], "channels": ["matches"]}, "FOO-BAR is not a valid product"),
        ({"product_ids": ["BTC-USD"], "channels": ["level2"]}, LOGIN),
        ({"product_ids": ["BTC-USD"], "channels": []}, "No channels provided"),
        ({"channels": ["matches"]}, " is not a valid product"),
        ({"product_ids": ["BTC-USD"], "channels": ["nothing"]}, "nothing is not a valid channel"),
    ],
)
def test_a_refusal_names_its_reason_and_subscribes_to_nothing(
    now_us: int, request_of: dict[str, Any], reason: str
) -> None:
    (action,) = asked(now_us, **request_of)
    assert isinstance(action, Send)
    assert json.loads(action.frame.text) == {"type": "error", "message": "Failed to subscribe", "reason": reason}


def test_a_connection_that_does_not_subscribe_within_five_seconds_is_closed(now_us: int) -> None:
    opened = session(now_us)
    assert opened.due(now_us + 4_999_999, 0, 0) == []
    assert opened.due(now_us + 5_000_000, 0, 0) == [Close(1008, "no subscription within 5 seconds")]
    busy = session(now_us)
    busy.received('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches"]}', now_us)
    assert busy.due(now_us + 60_000_000, 0, 0) == []


def test_products_are_listed_as_online(now_us: int) -> None:
    listed = {row["id"]: row for row in json.loads(venue().rest("/products", {}, now_us).body)}
    assert (listed["BTC-USD"]["status"], listed["BTC-USD"]["trading_disabled"]) == ("online", False)
    assert (listed["BTC-USD"]["quote_increment"], listed["BTC-USD"]["base_currency"]) == ("0.01", "BTC")


def test_recorded_frames_are_read_whole() -> None:
    match = '{"type":"match","trade_id":5,"product_id":"X-Y"}'
    assert Coinbase.read(match) == ("matches:X-Y", Frame(match, (Event("X-Y", "trade", "5", match),)))
    update = '{"type":"l2update","product_id":"X-Y","changes":[]}'
    assert Coinbase.read(update) == ("level2_batch:X-Y", Frame(update, (Event("X-Y", "orderbook", None, update),)))
    assert Coinbase.read('{"type":"ticker","product_id":"X-Y"}') is None
