import json
from typing import Any

from app.venues.binance import Binance
from app.venues.dialect import Close, Event, Frame, Join, Leave, Send, say
from app.venues.market import ASK, BID, Change, Step, Trade

BIDS = [(8_399_990, 120_000), (8_399_950, 30_000)]
ASKS = [(8_400_010, 50_000), (8_400_100, 7)]
BOUGHT = Trade(42, 1, 8_400_010, 20_000, True, 1_790_000_000_122_456, 905)
SOLD = Trade(43, 1, 8_399_990, 65, False, 1_790_000_000_122_456, 907)
STEP = Step(
    [BOUGHT, SOLD],
    [
        Change(ASK, 8_400_010, 30_000, 50_000),
        Change(BID, 8_399_950, 0, 30_000),
        Change(BID, 8_399_990, 119_935, 120_000),
    ],
)


def venue() -> Any:
    return Binance(Binance.listing(), 7, 1_000)


def session(now_us: int, **query: str) -> Any:
    return venue().session(1, query, now_us)


def test_partial_depth_is_the_best_levels_in_the_combined_envelope(quote: Any, apply: Any, now_us: int) -> None:
    binance = venue()
    market = quote(binance, "btcusdt", BIDS, ASKS)
    topic = binance.topic("btcusdt@depth5@100ms", now_us)
    text = (
        '{"stream":"btcusdt@depth5@100ms","data":{"lastUpdateId":703,'
        '"bids":[["83999.90000000","1.19935000"]],'
        '"asks":[["84000.10000000","0.30000000"],["84001.00000000","0.00007000"]]}}'
    )
    assert topic.advance(apply(market, STEP), now_us) == [Frame(text, (Event("btcusdt", "orderbook", None, text),))]


def test_an_unchanged_book_is_not_sent_twice_under_one_update_id(quote: Any, now_us: int) -> None:
    binance = venue()
    quote(binance, "btcusdt", BIDS, ASKS)
    topic = binance.topic("btcusdt@depth20", now_us)
    assert [len(topic.advance(Step([], []), now_us)) for _ in range(2)] == [1, 0]


def test_diff_depth_covers_the_updates_since_the_frame_before(quote: Any, apply: Any, now_us: int) -> None:
    binance = venue()
    market = quote(binance, "btcusdt", BIDS, ASKS)
    topic = binance.topic("btcusdt@depth@100ms", now_us)
    topic.begin(now_us)
    text = (
        '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1790000000123,"s":"BTCUSDT","U":701,"u":703,'
        '"b":[["83999.90000000","1.19935000"],["83999.50000000","0.00000000"]],"a":[["84000.10000000","0.30000000"]]}}'
    )
    assert topic.advance(apply(market, STEP), now_us) == [Frame(text, (Event("btcusdt", "orderbook", None, text),))]
    (following,) = topic.advance(apply(market, STEP), now_us)
    assert (json.loads(following.text)["data"]["U"], json.loads(following.text)["data"]["u"]) == (704, 706)


def test_each_trade_has_a_frame_and_m_says_that_the_buyer_was_the_maker(quote: Any, apply: Any, now_us: int) -> None:
    binance = venue()
    market = quote(binance, "btcusdt", BIDS, ASKS)
    bought = (
        '{"e":"trade","E":1790000000123,"s":"BTCUSDT","t":42,"p":"84000.10000000","q":"0.20000000",'
        '"T":1790000000122,"m":false,"M":true}'
    )
    sold = (
        '{"e":"trade","E":1790000000123,"s":"BTCUSDT","t":43,"p":"83999.90000000","q":"0.00065000",'
        '"T":1790000000122,"m":true,"M":true}'
    )
    assert binance.topic("btcusdt@trade", now_us).advance(apply(market, STEP), now_us) == [
        Frame('{"stream":"btcusdt@trade","data":' + bought + "}", (Event("btcusdt", "trade", "42", bought),)),
        Frame('{"stream":"btcusdt@trade","data":' + sold + "}", (Event("btcusdt", "trade", "43", sold),)),
    ]


def test_subscribing_is_acknowledged_whatever_the_stream_and_unknown_ones_stay_silent(now_us: int) -> None:
    opened = session(now_us)
    request = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "nosuch@trade"], "id": 7}
    assert opened.received(json.dumps(request), now_us) == [
        say('{"result":null,"id":7}'),
        Join("btcusdt@trade"),
        Join("nosuch@trade"),
    ]
    assert opened.venue.topic("nosuch@trade", now_us) is opened.venue.topic("BTCUSDT@trade", now_us) is None
    assert opened.received('{"method":"LIST_SUBSCRIPTIONS","id":"x"}', now_us) == [
        say('{"result":["btcusdt@trade","nosuch@trade"],"id":"x"}')
    ]
    assert opened.received('{"method":"UNSUBSCRIBE","params":["btcusdt@trade","b@trade"],"id":8}', now_us) == [
        say('{"result":null,"id":8}'),
        Leave("btcusdt@trade"),
    ]


def test_streams_named_in_the_url_are_joined_at_once(now_us: int) -> None:
    assert session(now_us, streams="btcusdt@trade/ethusdt@depth20").opened() == [
        Join("btcusdt@trade"),
        Join("ethusdt@depth20"),
    ]


def test_faulty_requests_are_answered_with_the_venues_codes(now_us: int) -> None:
    for text, code in (
        ("{", 3),
        ("[]", 2),
        ('{"id":1}', 2),
        ('{"method":"SUBSCRIBE","id":1}', 2),
        ('{"method":"X","params":[]}', 2),
    ):
        (action,) = session(now_us).received(text, now_us)
        assert isinstance(action, Send) and json.loads(action.frame.text)["code"] == code


def test_more_than_five_messages_a_second_end_the_connection(now_us: int) -> None:
    opened = session(now_us)
    listed = '{"method":"LIST_SUBSCRIPTIONS","id":1}'
    assert all(isinstance(opened.received(listed, now_us + n)[0], Send) for n in range(5))
    assert opened.received(listed, now_us + 5) == [Close(1008, "Too many requests")]
    calm = session(now_us)
    assert all(isinstance(calm.received(listed, now_us + n * 200_000)[0], Send) for n in range(20))


def test_exchange_info_lists_upper_case_symbols_and_refuses_an_unknown_one(now_us: int) -> None:
    answered = venue().rest("/api/v3/exchangeInfo", {"symbol": "ETHUSDT"}, now_us)
    (listed,) = json.loads(answered.body)["symbols"]
    assert (listed["symbol"], listed["status"], listed["baseAsset"], listed["quoteAsset"]) == (
        "ETHUSDT", "TRADING", "ETH", "USDT",
    )  # fmt: skip
    refused = venue().rest("/api/v3/exchangeInfo", {"symbol": "NOSUCH"}, now_us)
    assert (refused.status, refused.body) == (400, b'{"code":-1121,"msg":"Invalid symbol."}')


def test_the_depth_snapshot_has_the_update_id_that_diffs_continue(quote: Any, now_us: int) -> None:
    binance = venue()
    quote(binance, "btcusdt", BIDS, ASKS)
    answered = binance.rest("/api/v3/depth", {"symbol": "BTCUSDT", "limit": "1"}, now_us)
    assert answered.body == (
        b'{"lastUpdateId":700,"bids":[["83999.90000000","1.20000000"]],"asks":[["84000.10000000","0.50000000"]]}'
    )


def test_recorded_frames_are_read_with_exact_slices() -> None:
    trade = '{"stream":"xyzusdt@trade","data":{"e":"trade", "t":5,"p":"1.10"}}'
    data = '{"e":"trade", "t":5,"p":"1.10"}'
    assert Binance.read(trade) == ("xyzusdt@trade", Frame(trade, (Event("xyzusdt", "trade", "5", data),)))
    diff = '{"stream":"xyzusdt@depth@100ms","data":{"u":1}}'
    assert Binance.read(diff) == ("xyzusdt@depth@100ms", Frame(diff, (Event("xyzusdt", "orderbook", None, diff),)))
    assert Binance.read('{"stream":"xyzusdt@bookTicker","data":{}}') is None


def test_no_connection_has_more_than_1024_streams(now_us: int) -> None:
    names = [f"test{n:04d}usdt@{what}" for n in range(1, 600) for what in ("trade", "depth")]
    session = Binance(Binance.listing(), 7, 1_000).session(1, {}, now_us)
    ask = json.dumps({"method": "SUBSCRIBE", "params": names[:1024], "id": 1})
    assert len(session.received(ask, now_us)) == 1025
    again = json.dumps({"method": "SUBSCRIBE", "params": names[:1000], "id": 2})
    assert session.received(again, now_us) == [say('{"result":null,"id":2}')]
    more = json.dumps({"method": "SUBSCRIBE", "params": names[1000:1025], "id": 3})
    (refused,) = session.received(more, now_us)
    assert refused == say('{"code":2,"msg":"Invalid request: more than 1024 streams","id":3}')
    by_url = Binance(Binance.listing(), 7, 1_000).session(2, {"streams": "/".join(names[:1025])}, now_us)
    assert by_url.opened() == [Close(1008, "Too many streams")]


def test_a_connection_ends_after_a_day(now_us: int) -> None:
    session = Binance(Binance.listing(), 7, 1_000).session(1, {}, now_us)
    day_us = 86_400_000_000
    assert session.due(now_us + day_us - 1, now_us, now_us) == []
    assert session.due(now_us + day_us, now_us, now_us) == [Close(1001, "24 hours")]
