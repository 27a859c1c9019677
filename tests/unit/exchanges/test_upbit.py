"""Upbit: frames in, exact events out."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges.base import Decoded, Message, Notice, Rejected, Request, Subscription
from app.exchanges.upbit import Upbit
from app.model import ORDERBOOK, TRADE
from tests.unit.exchanges.golden import captured, frames, golden

UPBIT = Upbit()


def subscription(*symbols: str, feeds: tuple[str, ...] = (ORDERBOOK, TRADE)) -> Subscription:
    return Subscription(symbols, feeds, "orderbook", "trade")


def decode(frame: str, *symbols: str) -> list[Message]:
    return list(UPBIT.decoder(subscription(*(symbols or ("KRW-BTC", "KRW-ETH")))).decode(frame))


def event(frame: str, *symbols: str) -> Decoded:
    (message,) = decode(frame, *symbols)
    assert isinstance(message, Decoded)
    return message


@pytest.mark.parametrize("channel", ["orderbook", "trade"])
def test_golden_frames_become_exactly_the_golden_events(channel: str) -> None:
    assert [decode(frame) for frame in frames("upbit", channel)] == golden("upbit", channel)


def test_golden_control_frames_become_messages_without_data() -> None:
    assert [decode(frame) for frame in frames("upbit", "control")] == [
        [Notice("heartbeat", "UP")],
        [Rejected("", "NO_CODES: codes is missing")],
    ]


def test_everything_is_asked_for_in_one_message_that_nobody_will_answer() -> None:
    assert UPBIT.subscribe(subscription("KRW-BTC", "KRW-ETH"), "n0nce") == [
        Request(
            "",
            '[{"ticket":"n0nce"},{"type":"orderbook","codes":["KRW-BTC","KRW-ETH"]},'
            '{"type":"trade","codes":["KRW-BTC","KRW-ETH"]},{"format":"SIMPLE"}]',
            (("KRW-BTC", ORDERBOOK), ("KRW-BTC", TRADE), ("KRW-ETH", ORDERBOOK), ("KRW-ETH", TRADE)),
        )
    ]


def test_a_feed_that_is_not_wanted_is_not_asked_for() -> None:
    (request,) = UPBIT.subscribe(subscription("KRW-BTC", feeds=(TRADE,)), "n")
    assert request.frame == '[{"ticket":"n"},{"type":"trade","codes":["KRW-BTC"]},{"format":"SIMPLE"}]'


def test_resubscribing_one_feed_repeats_everything_because_a_message_replaces_the_earlier_one() -> None:
    wanted = subscription("KRW-BTC", "KRW-ETH")
    assert UPBIT.resubscribe(wanted, "KRW-ETH", ORDERBOOK, "again") == UPBIT.subscribe(wanted, "again")


def test_the_request_of_a_full_connection_stays_below_four_kilobytes() -> None:
    symbols = tuple(f"USDT-BASE{n:03}" for n in range(UPBIT.limits.markets_per_connection))
    (request,) = UPBIT.subscribe(subscription(*symbols), "0" * 32)
    assert len(request.frame) < 4096


@pytest.mark.parametrize(
    ("written", "canonical"), [("KRW-BTC", "KRW-BTC"), ("krw-btc", "KRW-BTC"), ("Btc-1inch", "BTC-1INCH")]
)
def test_symbols_are_stored_in_upper_case(written: str, canonical: str) -> None:
    assert UPBIT.canonical(written) == canonical


@pytest.mark.parametrize(
    "garbage", ["", "KRWBTC", "KRW-", "-BTC", "KRW-BTC.15", "KRW-BTC-1", "KRW_BTC", "KRW-BTC\n", "KRW-ßTC", "../KRW"]
)
def test_what_cannot_be_a_symbol_is_refused(garbage: str) -> None:
    with pytest.raises(InvalidSymbol, match="such as KRW-BTC"):
        UPBIT.canonical(garbage)


def test_a_symbol_with_the_quote_currency_last_is_refused_with_the_right_order() -> None:
    with pytest.raises(InvalidSymbol, match="the quote currency first"):
        UPBIT.canonical("BTC-KRW")


def test_short_and_long_names_say_the_same() -> None:
    short = '{"ty":"trade","cd":"KRW-BTC","ttms":1790000000001,"sid":17900000000010000,"st":"REALTIME"}'
    long = '{"type":"trade","code":"KRW-BTC","trade_timestamp":1790000000001,"sequential_id":17900000000010000}'
    assert msgspec.structs.replace(event(long), data=short) == event(short)


def test_two_books_of_one_millisecond_have_two_identities_and_a_repeated_frame_has_one() -> None:
    book = '{"ty":"orderbook","cd":"KRW-BTC","tms":1790000000123,"obu":[{"ap":%s,"bp":1.0}],"st":"REALTIME"}'
    first, second, again = event(book % "2.0"), event(book % "2.5"), event(book % "2.0")
    assert first.sequence_id != second.sequence_id
    assert first == again


def test_microseconds_sent_by_mistake_stay_in_the_identity_and_are_read_as_such() -> None:
    book = event('{"ty":"orderbook","cd":"KRW-BTC","tms":1691530805062000,"obu":[],"st":"REALTIME"}')
    assert book.exchange_us == 1691530805062000
    assert book.sequence_id.startswith("1691530805062000-REALTIME-")


def test_a_trade_id_beyond_what_a_float_can_hold_keeps_every_digit() -> None:
    assert event('{"ty":"trade","cd":"KRW-BTC","sid":17510687993360001}').sequence_id == "17510687993360001"


def test_a_trade_without_its_time_has_no_time_rather_than_zero() -> None:
    assert event('{"ty":"trade","cd":"KRW-BTC","sid":1}').exchange_us is None


def test_an_error_is_a_rejection_in_the_venues_words() -> None:
    assert decode('{"error":{"name":"NO_CODES","message":"codes field not exists."}}') == [
        Rejected("", "NO_CODES: codes field not exists.")
    ]


def test_a_status_is_a_sign_of_life_and_no_data() -> None:
    assert decode('{"status":"UP"}') == [Notice("heartbeat", "UP")]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", "not_json"),
        ("PONG", "not_json"),
        ('{"ty":"trade","cd":"KRW-BTC","sid":1', "not_json"),
        ("[]", "unexpected_shape"),
        ("{}", "unexpected_shape"),
        ('{"ty":"trade","cd":"KRW-BTC"}', "unexpected_shape"),
        ('{"ty":"trade","cd":"KRW-BTC","sid":"1"}', "unexpected_shape"),
        ('{"ty":"trade","cd":"KRW-BTC","sid":' + "9" * 5000 + "}", "unexpected_shape"),
        ('{"ty":"orderbook","cd":"KRW-BTC","obu":[]}', "unexpected_shape"),
        ('{"ty":"trade","cd":"KRW-XRP","sid":1}', "unexpected_symbol"),
        ('{"ty":"ticker","cd":"KRW-BTC"}', "unexpected_channel"),
        ('{"ty":"trade","x":' + "[" * 100_000, "too_deep"),
    ],
)
def test_a_frame_that_cannot_be_decoded_is_rejected_with_its_reason(frame: str, reason: str) -> None:
    with pytest.raises(FrameRejected) as rejected:
        decode(frame)
    assert rejected.value.reason == reason


@given(st.text())
def test_no_text_brings_the_decoder_down(text: str) -> None:
    try:
        decode(text)
    except FrameRejected:
        pass


def test_the_list_of_markets_is_read_as_it_stands() -> None:
    body = '[{"market":"KRW-BTC","english_name":"Bitcoin"},{"market":"USDT-ETH","korean_name":"이더리움"}]'
    assert UPBIT.listed(body.encode()) == {"KRW-BTC", "USDT-ETH"}


def test_an_error_instead_of_the_list_is_rejected() -> None:
    with pytest.raises(FrameRejected):
        UPBIT.listed(b'{"error":{"name":404,"message":"no"}}')


@pytest.mark.parametrize(("name", "feed"), [("orderbook_simple", ORDERBOOK), ("trade_simple", TRADE)])
def test_captured_frames_each_become_one_event_with_an_identity_of_its_own(name: str, feed: str) -> None:
    lines = captured("upbit", name)
    events = [event(frame, "KRW-LAMB") for frame in lines]
    assert [(e.symbol, e.feed, e.data) for e in events] == [("KRW-LAMB", feed, frame) for frame in lines]
    assert len({e.sequence_id for e in events}) == len(set(lines))
    assert all(e.exchange_us is not None and e.exchange_us // 10**9 == 1618678 for e in events)


def test_captured_trade_ids_are_not_in_order_so_they_claim_no_continuity() -> None:
    events = [event(frame, "KRW-LAMB") for frame in captured("upbit", "trade_simple")]
    ids = [int(e.sequence_id) for e in events]
    assert ids != sorted(ids)
    assert {(e.follows, e.last) for e in events} == {(None, None)}


def test_captured_answers_are_no_data() -> None:
    for frame in captured("upbit", "control"):
        assert all(isinstance(message, Notice | Rejected) for message in decode(frame))


def test_the_captured_list_of_markets_is_read() -> None:
    body = json.loads(captured("upbit", "rest")[0])["body_raw"]
    assert {"KRW-BTC", "BTC-ETH"} <= UPBIT.listed(body.encode())
