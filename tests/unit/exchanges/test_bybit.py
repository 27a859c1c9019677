"""Bybit: frames in, exact events out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges.base import Ack, Decoded, Message, Notice, Rejected, Request, Subscription
from app.exchanges.bybit import Bybit
from app.model import ORDERBOOK, TRADE
from tests.unit.exchanges.golden import captured, frames, golden

BYBIT = Bybit()
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def subscription(*symbols: str, channel: str = "orderbook.50") -> Subscription:
    return Subscription(symbols or SYMBOLS, (ORDERBOOK, TRADE), channel, "publicTrade")


def decode(frame: str, *symbols: str, channel: str = "orderbook.50") -> list[Message]:
    return list(BYBIT.decoder(subscription(*symbols, channel=channel)).decode(frame))


def events(frame: str, channel: str = "orderbook.50") -> list[Decoded]:
    messages = decode(frame, channel=channel)
    assert all(isinstance(message, Decoded) for message in messages)
    return [message for message in messages if isinstance(message, Decoded)]


def book(kind: str, u: int, seq: int, *, ts: int = 1790000000120, depth: int = 50) -> str:
    return (
        f'{{"topic":"orderbook.{depth}.BTCUSDT","ts":{ts},"type":"{kind}",'
        f'"data":{{"s":"BTCUSDT","b":[["1.0","0"]],"a":[],"u":{u},"seq":{seq}}},"cts":1790000000100}}'
    )


def trades(*rows: str) -> str:
    return '{"topic":"publicTrade.BTCUSDT","ts":1790000000700,"type":"snapshot","data":[' + ",".join(rows) + "]}"


@pytest.mark.parametrize("channel", ["orderbook.50", "orderbook.1", "publicTrade"])
def test_golden_frames_become_exactly_the_golden_events(channel: str) -> None:
    book_channel = channel if channel in BYBIT.orderbook_channels else "orderbook.50"
    assert [decode(frame, channel=book_channel) for frame in frames("bybit", channel)] == golden("bybit", channel)


def test_golden_control_frames_become_messages_without_data() -> None:
    assert [message for frame in frames("bybit", "control") for message in decode(frame)] == [
        Ack("n-0"),
        Ack(""),
        Notice("status", "unsubscribe True"),
        Notice("pong"),
        Rejected("", "Invalid symbol :[orderbook.50.ETHUSDT]", (("ETHUSDT", ORDERBOOK),)),
    ]


def test_each_market_is_asked_for_by_a_request_of_its_own() -> None:
    assert BYBIT.subscribe(subscription(), "n1") == [
        Request(
            f"n1-{n}",
            f'{{"req_id":"n1-{n}","op":"subscribe","args":["orderbook.50.{symbol}","publicTrade.{symbol}"]}}',
            ((symbol, ORDERBOOK), (symbol, TRADE)),
        )
        for n, symbol in enumerate(SYMBOLS)
    ]


def test_resubscribing_touches_one_feed_of_one_market() -> None:
    leave, enter = BYBIT.resubscribe(subscription(), "ETHUSDT", ORDERBOOK, "n2")
    assert leave == Request(
        "n2-u1o",
        '{"req_id":"n2-u1o","op":"unsubscribe","args":["orderbook.50.ETHUSDT"]}',
        (),
    )
    assert enter == Request(
        "n2-r1o",
        '{"req_id":"n2-r1o","op":"subscribe","args":["orderbook.50.ETHUSDT"]}',
        (("ETHUSDT", ORDERBOOK),),
    )


def test_a_full_connection_stays_within_ten_args_a_request_and_21000_characters_of_args() -> None:
    longest = tuple(f"{n:0>32}" for n in range(BYBIT.limits.markets_per_connection))
    assert [BYBIT.canonical(symbol) for symbol in longest] == list(longest)
    args = [json.loads(r.frame)["args"] for r in BYBIT.subscribe(subscription(*longest, channel="orderbook.1000"), "n")]
    assert max(len(a) for a in args) <= 10
    assert sum(len(json.dumps(a)) for a in args) <= 21_000


@pytest.mark.parametrize(
    ("written", "canonical"), [("btcusdt", "BTCUSDT"), ("1INCHUSDT", "1INCHUSDT"), ("1000pepeUSDT", "1000PEPEUSDT")]
)
def test_symbols_are_stored_in_upper_case(written: str, canonical: str) -> None:
    assert BYBIT.canonical(written) == canonical


@pytest.mark.parametrize(
    "garbage", ["", "BTC", "BTC-USDT", "BTC/USDT", "BTC_USDT", "BTCUSDT\n", "ßTCUSDT", "../BTC", "A" * 33]
)
def test_what_cannot_be_a_symbol_is_refused(garbage: str) -> None:
    with pytest.raises(InvalidSymbol, match="such as BTCUSDT"):
        BYBIT.canonical(garbage)


def test_a_delta_follows_the_update_before_it_and_a_snapshot_starts_anew() -> None:
    (delta,), (snapshot,) = events(book("delta", 41001, 9)), events(book("snapshot", 41001, 9))
    assert (delta.follows, delta.last, delta.dense) == (41000, 41001, True)
    assert (snapshot.follows, snapshot.last) == (None, 41001)
    assert delta.sequence_id != snapshot.sequence_id


def test_update_one_restarts_the_book_whatever_its_type_says() -> None:
    assert [(e.follows, e.last) for kind in ("snapshot", "delta") for e in events(book(kind, 1, 9))] == [(None, 1)] * 2


def test_a_counter_that_starts_over_does_not_repeat_identities() -> None:
    (before,), (after,) = events(book("snapshot", 1, 100)), events(book("snapshot", 1, 900))
    assert before.sequence_id != after.sequence_id


def test_the_depth_is_part_of_the_identity() -> None:
    (fifty,), (deep,) = events(book("delta", 7, 9)), events(book("delta", 7, 9, depth=200), "orderbook.200")
    assert (fifty.sequence_id, deep.sequence_id) == ("50-delta-7-9-1790000000100", "200-delta-7-9-1790000000100")


def test_without_the_engines_time_the_messages_time_stands_in_the_identity() -> None:
    (event,) = events(book("delta", 7, 9).replace(',"cts":1790000000100', ""))
    assert (event.sequence_id, event.exchange_us) == ("50-delta-7-9-1790000000120", 1790000000120000)


def test_a_best_bid_and_offer_repeated_without_change_is_two_events_and_no_gap() -> None:
    first, second = (
        events(book("snapshot", 7, 9, ts=ts, depth=1), "orderbook.1")[0] for ts in (1790000001000, 1790000004000)
    )
    assert first.sequence_id != second.sequence_id
    assert {(e.follows, e.last) for e in (first, second)} == {(None, None)}


def test_each_trade_of_a_frame_is_an_event_with_its_own_bytes_and_no_continuity() -> None:
    rows = (
        '{"i":"2100000000188691533","T":1790000000688,"s":"BTCUSDT","p":"1.0"}',
        '{ "s":"BTCUSDT", "i" : "0b5f", "T":1790000000689 }',
    )
    assert events(trades(*rows)) == [
        Decoded("BTCUSDT", TRADE, "2100000000188691533", 1790000000688000, rows[0]),
        Decoded("BTCUSDT", TRADE, "0b5f", 1790000000689000, rows[1]),
    ]


@pytest.mark.parametrize(
    "frame",
    [
        '{"success":true,"ret_msg":"pong","conn_id":"d967ikkn","req_id":"p1","op":"ping"}',
        '{"req_id":"p1","op":"pong","args":["1675418560633"],"conn_id":"cfcb4ocs"}',
    ],
)
def test_both_forms_of_pong_are_known(frame: str) -> None:
    assert decode(frame) == [Notice("pong")]


def test_an_ack_names_its_request_when_it_can() -> None:
    assert decode('{"success":true,"ret_msg":"subscribe","req_id":"n-0","op":"subscribe"}') == [Ack("n-0")]
    assert decode('{"success":true,"ret_msg":"","op":"subscribe","conn_id":"c"}') == [Ack("")]


def test_a_refused_topic_is_found_in_the_words_of_the_refusal() -> None:
    refusal = '{"success":false,"ret_msg":"Invalid symbol :[orderbook.50.ETHUSDT]","conn_id":"c","op":"subscribe"}'
    assert decode(refusal) == [Rejected("", "Invalid symbol :[orderbook.50.ETHUSDT]", (("ETHUSDT", ORDERBOOK),))]


def test_a_refused_topic_does_not_blame_one_whose_name_it_begins_with() -> None:
    refusal = '{"success":false,"ret_msg":"Invalid symbol :[orderbook.50.BTCUSD]","req_id":"n-1","op":"subscribe"}'
    assert decode(refusal) == [Rejected("n-1", "Invalid symbol :[orderbook.50.BTCUSD]")]


def test_a_refusal_of_a_million_letters_is_read_in_no_time_and_its_last_topic_found() -> None:
    words = f"{'a' * 1_000_000} {'a.' * 500_000} [publicTrade.ETHUSDT]"
    refusal = f'{{"success":false,"ret_msg":"{words}","op":"subscribe"}}'
    assert decode(refusal) == [Rejected("", words, (("ETHUSDT", TRADE),))]


def test_the_answer_to_an_unsubscription_is_status_even_when_it_failed() -> None:
    assert decode('{"success":true,"ret_msg":"","op":"unsubscribe"}') == [Notice("status", "unsubscribe True")]
    assert decode('{"success":false,"ret_msg":"no","op":"unsubscribe"}') == [Notice("status", "unsubscribe False no")]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", "not_json"),
        ("pong", "not_json"),
        (book("delta", 1, 2)[:-1], "not_json"),
        ("[]", "unexpected_shape"),
        ("{}", "unexpected_shape"),
        (trades(), "unexpected_shape"),
        (trades('{"i":"1"}'), "unexpected_shape"),
        (trades('{"i":"1","s":"BTCUSDT"}', '{"i":2,"s":"BTCUSDT"}'), "unexpected_shape"),
        (trades('{"i":"1","s":"BTCUSDT"}', '{"i":"2","s":"ETHUSDT"}'), "unexpected_symbol"),
        (book("delta", 1, 2).replace('"s":"BTCUSDT"', '"s":"ETHUSDT"'), "unexpected_symbol"),
        (book("delta", 1, 2).replace("50.BTCUSDT", "50.FOOUSDT"), "unexpected_symbol"),
        (book("delta", 1, 2, depth=200), "unexpected_channel"),
        (book("replace", 1, 2), "unexpected_shape"),
        (book("delta", 1, 2).replace('"seq":2', '"seq":' + "9" * 5000), "unexpected_shape"),
        (book("delta", 1, 2).replace("orderbook.50", "publicTrade"), "unexpected_shape"),
        (trades('{"i":"1","s":"BTCUSDT"}').replace("publicTrade", "orderbook.50"), "unexpected_shape"),
        ('{"x":' + "[" * 100_000, "too_deep"),
    ],
)
def test_a_frame_that_cannot_be_decoded_is_rejected_whole_with_its_reason(frame: str, reason: str) -> None:
    with pytest.raises(FrameRejected) as rejected:
        decode(frame)
    assert rejected.value.reason == reason


@given(st.text())
def test_no_text_brings_the_decoder_down(text: str) -> None:
    try:
        decode(text)
    except FrameRejected:
        pass


def test_only_trading_symbols_are_listed() -> None:
    trading, closed = '{"symbol":"BTCUSDT","status":"Trading"}', '{"symbol":"OLDUSDT","status":"Closed"}'
    body = '{"retCode":0,"result":{"list":[' + trading + "," + closed + "]}}"
    assert BYBIT.listed(body.encode()) == {"BTCUSDT"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"retCode":10006,"retMsg":"Too many visits!","result":{}}', "venue_error"),
        (b'{"retCode":0,"result":{"list":[],"nextPageCursor":"abc"}}', "incomplete_list"),
        (b"<html>", "not_json"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_rejected(body: bytes, reason: str) -> None:
    with pytest.raises(FrameRejected) as rejected:
        BYBIT.listed(body)
    assert rejected.value.reason == reason


def test_the_captured_session_is_one_unbroken_book_beside_its_trades() -> None:
    session = captured("bybit", "spot_testnet_2026_session")
    fifty = [event for frame in session if '"orderbook.50.BTCUSDT"' in frame for event in events(frame)]
    assert fifty[0].follows is None
    assert [e.follows for e in fifty[1:]] == [e.last for e in fifty[:-1]]
    executed = [event for frame in session if '"publicTrade.' in frame for event in events(frame)]
    assert [e.sequence_id[-3:] for e in executed] == ["524", "528", "533", "534", "535", "536", "540", "544"]
    assert all(json.loads(e.data)["i"] == e.sequence_id for e in executed)


def test_the_captured_repeats_of_the_best_bid_and_offer_stay_distinct() -> None:
    best = [frame for frame in captured("bybit", "spot_testnet_2026_session") if '"orderbook.1.BTCUSDT"' in frame]
    decoded = [event for frame in best for event in events(frame, "orderbook.1")]
    assert len({e.sequence_id for e in decoded}) == len(best)


def test_captured_frames_of_the_main_net_are_one_chain() -> None:
    snapshot, delta = [
        event for frame in captured("bybit", "spot_orderbook200") for event in events(frame, "orderbook.200")
    ]
    assert (snapshot.follows, delta.follows, delta.exchange_us) == (None, snapshot.last, 1703430557896000)
    executed = [event for frame in captured("bybit", "spot_publicTrade") for event in events(frame)]
    assert [e.sequence_id for e in executed] == ["2290000000090712222", "2290000000090712223"]


def test_captured_answers_are_no_data() -> None:
    control = [frame for frame in captured("bybit", "spot_testnet_2026_session") if '"success"' in frame]
    messages = [message for frame in [*control, *captured("bybit", "acks")] for message in decode(frame)]
    kinds = [type(message) for message in messages]
    assert kinds == [Ack, Notice, Rejected, Ack, Ack, Rejected, Ack]


def test_the_captured_list_of_instruments_is_read() -> None:
    body = json.loads(captured("bybit", "rest")[0])["body_raw"]
    assert BYBIT.listed(body.encode()) == {"BTCUSDT", "ETHUSDT"}
