import json
from typing import Any

import pytest

from app.venues.bybit import Bybit
from app.venues.dialect import Close, Event, Frame, Join, Leave, say
from app.venues.market import ASK, BID, Change, Step, Trade

BIDS = [(8_399_990, 1_200_000), (8_399_950, 300_000)]
ASKS = [(8_400_010, 500_000), (8_400_100, 7)]
BOUGHT = Trade(44, 3, 8_400_010, 200_000, True, 1_790_000_000_122_456, 905)
SOLD = Trade(45, 1, 8_399_990, 650, False, 1_790_000_000_122_456, 906)
STEP = Step([BOUGHT, SOLD], [Change(ASK, 8_400_010, 300_000, 500_000), Change(BID, 8_399_950, 0, 300_000)])


def venue() -> Any:
    return Bybit(Bybit.listing(), 7, 1_000)


def session(now_us: int) -> Any:
    return venue().session(1, {}, now_us)


def book(text: str) -> Frame:
    return Frame(text, (Event("BTCUSDT", "orderbook", None, text),))


def test_a_book_is_a_snapshot_then_deltas_numbered_one_by_one(quote: Any, apply: Any, now_us: int) -> None:
    bybit = venue()
    market = quote(bybit, "BTCUSDT", BIDS, ASKS)
    topic = bybit.topic("orderbook.50.BTCUSDT", now_us)
    topic.begin(now_us)
    assert topic.opening(now_us) == [
        book(
            '{"topic":"orderbook.50.BTCUSDT","ts":1790000000123,"type":"snapshot","data":{"s":"BTCUSDT",'
            '"b":[["83999.9","1.2"],["83999.5","0.3"]],"a":[["84000.1","0.5"],["84001","0.000007"]],'
            '"u":51001,"seq":900},"cts":1790000000123}'
        )
    ]
    assert topic.advance(apply(market, STEP), now_us + 5_000) == [
        book(
            '{"topic":"orderbook.50.BTCUSDT","ts":1790000000128,"type":"delta","data":{"s":"BTCUSDT",'
            '"b":[["83999.5","0"]],"a":[["84000.1","0.3"]],"u":51002,"seq":910},"cts":1790000000128}'
        )
    ]
    assert topic.advance(Step([], []), now_us) == []


def test_depth_1_has_only_snapshots_and_repeats_one_after_three_seconds_under_the_same_u(
    quote: Any, apply: Any, now_us: int
) -> None:
    bybit = venue()
    market = quote(bybit, "BTCUSDT", BIDS, ASKS)
    topic = bybit.topic("orderbook.1.BTCUSDT", now_us)
    topic.begin(now_us)
    changed = (
        '{"topic":"orderbook.1.BTCUSDT","ts":1790000000123,"type":"snapshot","data":{"s":"BTCUSDT",'
        '"b":[["83999.9","1.2"]],"a":[["84000.1","0.3"]],"u":2002,"seq":910},"cts":1790000000123}'
    )
    assert topic.advance(apply(market, STEP), now_us) == [book(changed)]
    market.sequence += 9
    assert topic.quiet(now_us + 2_999_999) == []
    repeated = changed.replace('"ts":1790000000123,"type"', '"ts":1790000003123,"type"').replace("910", "919")
    assert topic.quiet(now_us + 3_000_000) == [book(repeated)]


def test_trades_share_a_frame_and_their_19_digit_ids_skip(quote: Any, apply: Any, now_us: int) -> None:
    bybit = venue()
    market = quote(bybit, "BTCUSDT", BIDS, ASKS)
    bought = (
        '{"i":"2290000000000000044","T":1790000000122,"p":"84000.1","v":"0.2","S":"Buy","seq":905,"s":"BTCUSDT",'
        '"BT":false,"RPI":false}'
    )
    sold = (
        '{"i":"2290000000000000045","T":1790000000122,"p":"83999.9","v":"0.00065","S":"Sell","seq":906,"s":"BTCUSDT",'
        '"BT":false,"RPI":false}'
    )
    text = '{"topic":"publicTrade.BTCUSDT","ts":1790000000123,"type":"snapshot","data":[' + bought + "," + sold + "]}"
    events = (
        Event("BTCUSDT", "trade", "2290000000000000044", bought),
        Event("BTCUSDT", "trade", "2290000000000000045", sold),
    )
    assert bybit.topic("publicTrade.BTCUSDT", now_us).advance(apply(market, STEP), now_us) == [Frame(text, events)]


def test_a_request_is_acknowledged_under_its_req_id(now_us: int) -> None:
    opened = session(now_us)
    known = opened.connection_id
    request = '{"req_id":"s1","op":"subscribe","args":["orderbook.50.BTCUSDT","publicTrade.BTCUSDT"]}'
    assert opened.received(request, now_us) == [
        say(f'{{"success":true,"ret_msg":"subscribe","conn_id":"{known}","req_id":"s1","op":"subscribe"}}'),
        Join("orderbook.50.BTCUSDT"),
        Join("publicTrade.BTCUSDT"),
    ]
    assert opened.received('{"op":"unsubscribe","args":["publicTrade.BTCUSDT"]}', now_us) == [
        say(f'{{"success":true,"ret_msg":"","conn_id":"{known}","op":"unsubscribe"}}'),
        Leave("publicTrade.BTCUSDT"),
    ]
    assert opened.received('{"req_id":"p1","op":"ping"}', now_us) == [
        say(f'{{"success":true,"ret_msg":"pong","conn_id":"{known}","req_id":"p1","op":"ping"}}')
    ]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["publicTrade.BTCUSDT", "orderbook.50.NOSUCHSYM"], "Invalid symbol :[orderbook.50.NOSUCHSYM]"),
        (["liquidations:BTCUSDT"], "error:handler not found,topic:liquidations:BTCUSDT"),
        (["orderbook.7.BTCUSDT"], "error:handler not found,topic:orderbook.7.BTCUSDT"),
        ([f"publicTrade.TEST{n:04d}USDT" for n in range(1, 12)], "args size >10"),
        ([], "error:args is empty"),
    ],
)
def test_a_wrong_topic_refuses_its_whole_request(now_us: int, args: list[str], words: str) -> None:
    request = json.dumps({"req_id": "s1", "op": "subscribe", "args": args})
    (action,) = session(now_us).received(request, now_us)
    answered = json.loads(action.frame.text)
    assert (answered["success"], answered["ret_msg"], answered["op"]) == (False, words, "subscribe")
    assert ("req_id" in answered) is not words.startswith("Invalid symbol")


def test_a_topic_is_subscribed_once(now_us: int) -> None:
    opened = session(now_us)
    request = '{"req_id":"s1","op":"subscribe","args":["publicTrade.BTCUSDT"]}'
    opened.received(request, now_us)
    (action,) = opened.received(request, now_us)
    assert json.loads(action.frame.text)["ret_msg"] == "error:already subscribed,topic:publicTrade.BTCUSDT"


def test_ten_minutes_of_silence_on_both_sides_end_the_connection(now_us: int) -> None:
    opened = session(now_us)
    assert opened.due(now_us + 599_999_999, 0, 0) == []
    assert opened.due(now_us + 600_000_000, 0, 0) == [Close(1000, "no ping in 10 minutes")]
    assert opened.due(now_us + 600_000_000, 0, now_us + 1) == []


def test_instruments_are_listed_as_trading(now_us: int) -> None:
    info = json.loads(venue().rest("/v5/market/instruments-info", {"category": "spot"}, now_us).body)
    first = info["result"]["list"][0]
    assert (info["retCode"], first["symbol"], first["status"]) == (0, "BTCUSDT", "Trading")
    assert json.loads(venue().rest("/v5/market/instruments-info", {}, now_us).body)["retCode"] == 10001


def test_recorded_frames_are_read_with_exact_slices() -> None:
    trades = '{"topic":"publicTrade.XY","type":"snapshot","data":[{"i":"5", "p":"1.10"},{"i":"7"}]}'
    assert Bybit.read(trades) == (
        "publicTrade.XY",
        Frame(trades, (Event("XY", "trade", "5", '{"i":"5", "p":"1.10"}'), Event("XY", "trade", "7", '{"i":"7"}'))),
    )
    delta = '{"topic":"orderbook.200.XY","type":"delta","data":{"s":"XY"}}'
    assert Bybit.read(delta) == ("orderbook.200.XY", Frame(delta, (Event("XY", "orderbook", None, delta),)))
