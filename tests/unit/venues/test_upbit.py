import json
from typing import Any

import pytest

from app.venues.dialect import Close, Event, Frame, Join, Leave, say
from app.venues.market import ASK, Change, Step, Trade
from app.venues.upbit import UP, Upbit

BIDS = [(1_217_990_000, 120_000_000), (1_217_980_000, 30_000_000)]
ASKS = [(1_218_000_000, 50_000_000), (1_218_010_000, 6_043)]
SOLD = Trade(17_900_000_001_230_000, 1, 1_217_990_000, 8_428, False, 1_790_000_000_122_456, 904)
BOUGHT = Trade(17_900_000_001_230_001, 1, 1_218_000_000, 20_000_000, True, 1_790_000_000_122_456, 905)
CHANGES = [Change(ASK, 1_218_000_000, 30_000_000, 50_000_000)]


def venue() -> Any:
    return Upbit(Upbit.listing(), 7, 1_000)


def session(now_us: int) -> Any:
    return venue().session(1, {}, now_us)


def test_an_order_book_is_a_full_snapshot_in_a_binary_frame(quote: Any, apply: Any, now_us: int) -> None:
    upbit = venue()
    market = quote(upbit, "KRW-BTC", BIDS, ASKS)
    topic = upbit.topic("orderbook:KRW-BTC:30:SIMPLE", now_us)
    snapshot = (
        '{"ty":"orderbook","cd":"KRW-BTC","tms":1790000000123,"tas":0.50006043,"tbs":1.5,"obu":['
        '{"ap":121800000.0,"bp":121799000.0,"as":0.5,"bs":1.2},{"ap":121801000.0,"bp":121798000.0,"as":6.043e-05,"bs":0.3}'
        '],"st":"SNAPSHOT","lv":0}'
    )
    assert topic.opening(now_us) == [Frame(snapshot, (Event("KRW-BTC", "orderbook", None, snapshot),), binary=True)]
    (live,) = topic.advance(apply(market, Step([], CHANGES)), now_us)
    assert live.text == snapshot.replace("SNAPSHOT", "REALTIME").replace("0.50006043", "0.30006043").replace(
        '"as":0.5', '"as":0.3'
    )


def test_the_default_format_has_the_long_names_and_fewer_levels_on_request(quote: Any, now_us: int) -> None:
    upbit = venue()
    quote(upbit, "KRW-BTC", BIDS, ASKS)
    (frame,) = upbit.topic("orderbook:KRW-BTC:1:DEFAULT", now_us).opening(now_us)
    assert frame.text == (
        '{"type":"orderbook","code":"KRW-BTC","timestamp":1790000000123,"total_ask_size":0.5,"total_bid_size":1.2,'
        '"orderbook_units":[{"ask_price":121800000.0,"bid_price":121799000.0,"ask_size":0.5,"bid_size":1.2}],'
        '"stream_type":"SNAPSHOT","level":0}'
    )


def test_a_trade_has_the_takers_side_and_a_17_digit_id(quote: Any, apply: Any, now_us: int) -> None:
    upbit = venue()
    market = quote(upbit, "KRW-BTC", BIDS, ASKS)
    (frame,) = upbit.topic("trade:KRW-BTC:30:SIMPLE", now_us).advance(apply(market, Step([SOLD], CHANGES)), now_us)
    text = (
        '{"ty":"trade","cd":"KRW-BTC","tms":1790000000123,"td":"2026-09-21","ttm":"14:13:20","ttms":1790000000122,'
        '"tp":121799000.0,"tv":8.428e-05,"ab":"ASK","pcp":121800000.0,"c":"FALL","cp":1000.0,"sid":17900000001230000,'
        '"bap":121800000.0,"bas":0.3,"bbp":121799000.0,"bbs":1.2,"st":"REALTIME"}'
    )
    assert frame == Frame(text, (Event("KRW-BTC", "trade", "17900000001230000", text),), binary=True)


def test_both_formats_name_the_same_trade_alike_and_the_newer_may_come_first(quote: Any, now_us: int) -> None:
    upbit = venue()
    quote(upbit, "KRW-BTC", BIDS, ASKS)
    step = Step([SOLD._replace(sequence=903), BOUGHT], CHANGES)
    for form, key in (("SIMPLE", "sid"), ("DEFAULT", "sequential_id")):
        frames = upbit.topic(f"trade:KRW-BTC:30:{form}", now_us).advance(step, now_us)
        assert [json.loads(frame.text)[key] for frame in frames] == [17_900_000_001_230_001, 17_900_000_001_230_000]


def subscribe(*parts: object) -> str:
    return json.dumps([{"ticket": "t"}, *parts])


def test_subscribing_has_no_answer_and_a_later_message_replaces_the_earlier(now_us: int) -> None:
    opened = session(now_us)
    first = subscribe({"type": "orderbook", "codes": ["KRW-BTC", "KRW-ETH.15"]}, {"format": "SIMPLE"})
    assert opened.received(first, now_us) == [
        Join("orderbook:KRW-BTC:30:SIMPLE"),
        Join("orderbook:KRW-ETH:15:SIMPLE"),
    ]
    second = subscribe(
        {"type": "orderbook", "codes": ["KRW-BTC.7"], "is_only_snapshot": True},
        {"type": "trade", "codes": ["KRW-NONE"], "isOnlyRealtime": True},
    )
    assert opened.received(second, now_us) == [
        Leave("orderbook:KRW-BTC:30:SIMPLE"),
        Leave("orderbook:KRW-ETH:15:SIMPLE"),
        Join("orderbook:KRW-BTC:30:DEFAULT", live=False),
        Join("trade:KRW-NONE:30:DEFAULT", opening=False),
    ]
    assert opened.venue.topic("trade:KRW-NONE:30:DEFAULT", now_us) is None


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("{", "WRONG_FORMAT"),
        ('{"ticket":"t"}', "WRONG_FORMAT"),
        ('[{"type":"trade","codes":["KRW-BTC"]}]', "NO_TICKET"),
        (subscribe(), "NO_TYPE"),
        (subscribe({"type": "candles", "codes": ["KRW-BTC"]}), "NO_TYPE"),
        (subscribe({"type": "trade"}), "NO_CODES"),
        (subscribe({"type": "trade", "codes": []}), "INVALID_PARAM"),
        (subscribe({"type": "trade", "codes": ["KRW-BTC"]}, {"format": "YAML"}), "WRONG_FORMAT"),
        (subscribe({"type": "trade", "codes": ["KRW-BTC"]}, {"format": []}), "WRONG_FORMAT"),
    ],
)
def test_a_faulty_message_is_answered_with_the_name_of_its_fault(now_us: int, message: str, name: str) -> None:
    (action,) = session(now_us).received(message, now_us)
    assert json.loads(action.frame.text)["error"]["name"] == name


def test_ping_is_answered_with_the_status_then_every_ten_seconds(now_us: int) -> None:
    opened = session(now_us)
    assert opened.due(now_us + 20_000_000, now_us + 20_000_000, 0) == []
    assert opened.received("PING", now_us) == [say(UP)]
    assert opened.due(now_us + 9_999_999, now_us, now_us) == []
    assert opened.due(now_us + 10_000_000, now_us, now_us) == [say(UP)]
    assert opened.due(now_us + 10_000_001, now_us, now_us) == []


def test_two_minutes_without_traffic_end_the_connection(now_us: int) -> None:
    opened = session(now_us)
    assert opened.due(now_us + 130_000_000, now_us + 10_000_001, now_us) == []
    assert opened.due(now_us + 130_000_000, now_us, now_us + 10_000_001) == []
    assert opened.due(now_us + 130_000_000, now_us, now_us + 10_000_000) == [Close(1000, "idle for 120 seconds")]


def test_an_origin_header_is_admitted_once_in_ten_seconds(now_us: int) -> None:
    upbit = venue()
    page = "http://page.example"
    asked = [
        (page, "127.0.0.1", 0),
        (page, "127.0.0.1", 9_999_999),
        (page, "127.0.0.2", 9_999_999),
        (None, "127.0.0.1", 9_999_999),
        (page, "127.0.0.1", 10_000_000),
    ]
    answered = [upbit.refusal(origin, address, now_us + later) for origin, address, later in asked]
    assert answered == [None, 429, None, None, None]


def test_now_and_then_two_books_share_a_moment_and_differ(now_us: int) -> None:
    upbit = venue()
    market = upbit.market("KRW-BTC", now_us)
    topic = upbit.topic("orderbook:KRW-BTC:30:SIMPLE", now_us)
    texts = [
        [frame.text for step in upbit.steps(market, now_us) for frame in topic.advance(step, now_us)]
        for _ in range(200)
    ]
    twice = [pair for pair in texts if len(pair) == 2]
    assert twice and all(first != second for first, second in twice)


def test_markets_are_listed_quote_first(now_us: int) -> None:
    assert json.loads(venue().rest("/v1/market/all", {}, now_us).body)[0] == {
        "market": "KRW-BTC", "korean_name": "BTC", "english_name": "BTC",
    }  # fmt: skip


def test_recorded_frames_of_both_formats_are_read_and_found_whatever_the_depth() -> None:
    simple = '{"ty":"trade","cd":"KRW-X","tp":127.0,"sid":5}'
    assert Upbit.read(simple) == ("trade:KRW-X", Frame(simple, (Event("KRW-X", "trade", "5", simple),), binary=True))
    default = '{"type":"orderbook","code":"KRW-X","timestamp":1}'
    read = Upbit.read(default)
    assert read == ("orderbook:KRW-X", Frame(default, (Event("KRW-X", "orderbook", None, default),), binary=True))
    assert venue().recorded_as("orderbook:KRW-X:15:SIMPLE") == "orderbook:KRW-X"
    assert Upbit.read('{"ty":"ticker","cd":"KRW-X"}') is None
