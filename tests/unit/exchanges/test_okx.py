"""OKX: frames in, exact events out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges.base import Ack, Decoded, Message, Notice, Rejected, Request, Subscription
from app.exchanges.okx import Okx
from app.model import ORDERBOOK, TRADE
from app.sequence import Continuity
from tests.unit.exchanges.golden import captured, frames, golden

OKX = Okx()
SYMBOLS = ("BTC-USDT", "ETH-USDT")


def subscription(*symbols: str, channel: str = "books") -> Subscription:
    return Subscription(symbols or SYMBOLS, (ORDERBOOK, TRADE), channel, "trades")


def decode(frame: str, *symbols: str, channel: str = "books") -> list[Message]:
    return list(OKX.decoder(subscription(*symbols, channel=channel)).decode(frame))


def events(frame: str, *symbols: str, channel: str = "books") -> list[Decoded]:
    messages = decode(frame, *symbols, channel=channel)
    assert all(isinstance(message, Decoded) for message in messages)
    return [message for message in messages if isinstance(message, Decoded)]


def update(before: int, last: int, ts: int = 1790000000000, levels: str = '["1","1","0","1"]') -> str:
    return (
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":['
        f'{levels}],"bids":[],"ts":"{ts}","checksum":0,"seqId":{last},"prevSeqId":{before}'
        "}]}"
    )


def snapshot(last: int, price: str) -> str:
    return (
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["'
        f'{price}","1","0","1"]],"bids":[],"ts":"1790000000000","checksum":0,"seqId":{last},"prevSeqId":-1'
        "}]}"
    )


def trades(*rows: str) -> str:
    return '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[' + ",".join(rows) + "]}"


@pytest.mark.parametrize("channel", ["books", "books5", "bbo-tbt", "trades"])
def test_golden_frames_become_exactly_the_golden_events(channel: str) -> None:
    book = channel if channel in OKX.orderbook_channels else "books"
    assert [decode(frame, channel=book) for frame in frames("okx", channel)] == golden("okx", channel)


def test_golden_control_frames_become_messages_without_data() -> None:
    words = "doesn't exist. Please use the correct URL, channel and parameters referring to API document."
    assert [message for frame in frames("okx", "control") for message in decode(frame)] == [
        Notice("pong"),
        Ack("7", (("BTC-USDT", ORDERBOOK),)),
        Notice("status", "unsubscribe books BTC-USDT"),
        Rejected("", f"60018: Wrong URL or channel:books,instId:ETH-USDT {words}", (("ETH-USDT", ORDERBOOK),)),
        Notice("shutdown", "64008: The connection will soon be closed for a service upgrade. Please reconnect."),
        Notice("status", "channel-conn-count"),
    ]


def test_each_market_is_asked_for_by_a_request_of_its_own() -> None:
    assert OKX.subscribe(subscription(), "0123abcd") == [
        Request(
            f"0123abcds{n}",
            f'{{"id":"0123abcds{n}","op":"subscribe",'
            f'"args":[{{"channel":"books","instId":"{symbol}"}},{{"channel":"trades","instId":"{symbol}"}}]}}',
            ((symbol, ORDERBOOK), (symbol, TRADE)),
        )
        for n, symbol in enumerate(SYMBOLS)
    ]


def test_resubscribing_touches_one_feed_of_one_market() -> None:
    leave, enter = OKX.resubscribe(subscription(), "ETH-USDT", ORDERBOOK, "n2")
    arg = '"args":[{"channel":"books","instId":"ETH-USDT"}]}'
    assert leave == Request("n2u1o", '{"id":"n2u1o","op":"unsubscribe",' + arg, ())
    assert enter == Request("n2r1o", '{"id":"n2r1o","op":"subscribe",' + arg, (("ETH-USDT", ORDERBOOK),))


@given(st.uuids().map(str))
def test_request_ids_are_letters_and_digits_at_most_32_long_and_differ(nonce: str) -> None:
    symbols = tuple(f"TEST{n}-USDT" for n in range(OKX.limits.markets_per_connection))
    ids = [request.id for request in OKX.subscribe(subscription(*symbols), nonce)]
    for symbol in symbols:
        for feed in (ORDERBOOK, TRADE):
            ids += [request.id for request in OKX.resubscribe(subscription(*symbols), symbol, feed, nonce)]
    assert all(i.isascii() and i.isalnum() and len(i) <= 32 for i in ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("written", "canonical"), [("btc-usdt", "BTC-USDT"), ("1INCH-USDT", "1INCH-USDT"), ("BTC-USDT-SWAP",) * 2]
)
def test_symbols_are_stored_in_upper_case(written: str, canonical: str) -> None:
    assert OKX.canonical(written) == canonical


@pytest.mark.parametrize(
    "garbage", ["", "BTCUSDT", "BTC/USDT", "BTC-", "-USDT", "BTC--USDT", "BTC-USDT\n", "BTC-ÜSDT", "../BTC"]
)
def test_what_cannot_be_a_symbol_is_refused(garbage: str) -> None:
    with pytest.raises(InvalidSymbol, match="such as BTC-USDT"):
        OKX.canonical(garbage)


def test_an_update_follows_what_prev_seq_id_says_whatever_the_distance() -> None:
    (event,) = events(update(5000, 5017))
    assert (event.sequence_id, event.follows, event.last, event.dense) == ("books-update-5000-5017", 5000, 5017, False)


def test_a_snapshot_starts_anew() -> None:
    (event,) = events(snapshot(5017, "1"))
    assert (event.follows, event.last) == (None, 5017)


def test_an_update_with_nothing_before_it_starts_anew_like_a_snapshot() -> None:
    (event,) = events(update(-1, 5000))
    assert (event.follows, event.last) == (None, 5000)


def test_a_snapshot_with_the_sequence_id_of_a_stored_update_is_another_event() -> None:
    (stored,), (fresh,) = events(update(5000, 5017)), events(snapshot(5017, "1"))
    assert stored.sequence_id != fresh.sequence_id


def test_equal_snapshots_of_two_connections_are_one_event_and_different_ones_are_two() -> None:
    (one,), (same,), (other,) = events(snapshot(7, "1")), events(snapshot(7, "1")), events(snapshot(7, "2"))
    assert one == same
    assert one.sequence_id != other.sequence_id


def test_keep_alives_of_a_quiet_minute_stay_distinct_and_keep_the_chain() -> None:
    (first,), (second,) = (events(update(9, 9, ts, levels="")) for ts in (1790000060000, 1790000120000))
    assert first.sequence_id == "books-update-9-9-1790000060000"
    assert second.sequence_id == "books-update-9-9-1790000120000"
    assert {(e.follows, e.last) for e in (first, second)} == {(9, 9)}


def test_a_maintenance_reset_keeps_the_chain_unbroken() -> None:
    chain = [event for before, last in [(100, 110), (110, 3), (3, 15)] for event in events(update(before, last))]
    assert [e.follows for e in chain[1:]] == [e.last for e in chain[:-1]]


def test_a_row_of_trades_follows_the_trade_before_the_range_it_stands_for() -> None:
    (event,) = events(trades('{"instId":"BTC-USDT","tradeId":"130639474","ts":"1630048897897","count":"3"}'))
    assert (event.sequence_id, event.follows, event.last, event.dense) == ("130639474", 130639471, 130639474, True)


@pytest.mark.parametrize("count", ["0", "-1"])
def test_a_row_that_claims_to_be_no_trade_is_one(count: str) -> None:
    (event,) = events(trades(f'{{"instId":"BTC-USDT","tradeId":"8","ts":"1630048897897","count":"{count}"}}'))
    assert (event.sequence_id, event.follows, event.last) == ("8", 7, 8)


def test_between_the_smallest_and_the_largest_id_lies_a_hole_that_every_column_holds() -> None:
    with pytest.raises(FrameRejected):
        events(trades('{"tradeId":"-1"}'))
    continuity = Continuity()
    for identity in (0, 2**63 - 1):
        (event,) = events(trades(f'{{"tradeId":"{identity}","count":"0"}}'))
        _, hole = continuity.check(event, 1)
    assert hole is not None and (hole.from_id, hole.to_id, hole.size) == (1, 2**63 - 2, 2**63 - 2)


def test_each_row_of_a_trades_frame_is_an_event_with_its_own_bytes() -> None:
    rows = ('{"instId":"BTC-USDT","tradeId":"5","ts":"1","px":"1.0"}', '{ "tradeId" : "7", "count":"2", "sz":"0.10" }')
    assert [(e.sequence_id, e.data, e.follows) for e in events(trades(*rows))] == [("5", rows[0], 4), ("7", rows[1], 5)]


def test_a_trade_without_its_time_has_no_time_rather_than_zero() -> None:
    (event,) = events(trades('{"tradeId":"5"}'))
    assert event.exchange_us is None


def test_an_ack_names_its_request_and_its_feed() -> None:
    ack = '{"id":"s1","event":"subscribe","arg":{"channel":"trades","instId":"ETH-USDT"},"connId":"a4d3ae55"}'
    assert decode(ack) == [Ack("s1", (("ETH-USDT", TRADE),))]


@pytest.mark.parametrize("comma", [",", ", "])
def test_a_refused_feed_is_found_in_the_words_of_the_error(comma: str) -> None:
    words = f"Wrong URL or channel:books{comma}instId:ETH-USDT doesn't exist. Please use the correct URL."
    error = json.dumps({"event": "error", "msg": words, "code": "60018", "connId": "94d38802"})
    assert decode(error) == [Rejected("", f"60018: {words}", (("ETH-USDT", ORDERBOOK),))]


def test_an_error_about_a_feed_that_nobody_asked_for_names_none() -> None:
    error = '{"id":"s0","event":"error","msg":"channel:candle1m,instId:BTC-USDT doesn\'t exist","code":"60018"}'
    assert decode(error) == [Rejected("s0", "60018: channel:candle1m,instId:BTC-USDT doesn't exist")]


def test_the_notice_of_an_upgrade_is_a_shutdown_and_other_events_are_status() -> None:
    assert decode('{"event":"notice","code":"64008","msg":"soon"}') == [Notice("shutdown", "64008: soon")]
    assert decode('{"event":"notice","code":"1","msg":"hello"}') == [Notice("status", "notice 1: hello")]
    assert decode('{"event":"unsubscribe","arg":{"channel":"books","instId":"BTC-USDT"}}') == [
        Notice("status", "unsubscribe books BTC-USDT")
    ]


def test_pong_is_an_answer_although_it_is_not_json() -> None:
    assert decode("pong") == [Notice("pong")]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", "not_json"),
        ("ping", "not_json"),
        (update(1, 2)[:-1], "not_json"),
        ("[]", "unexpected_shape"),
        ("{}", "unexpected_channel"),
        (trades(), "unexpected_shape"),
        (trades('{"instId":"BTC-USDT","ts":"1"}'), "unexpected_shape"),
        (trades('{"tradeId":"5"}', '{"tradeId":"x"}'), "unexpected_shape"),
        (trades('{"tradeId":"5"}', '{"tradeId":"6","instId":"ETH-USDT"}'), "unexpected_symbol"),
        (trades('{"tradeId":"' + "9" * 5000 + '"}'), "unexpected_shape"),
        (update(1, 2).replace("BTC-USDT", "FOO-USDT"), "unexpected_symbol"),
        (update(1, 2).replace('"books"', '"books5"'), "unexpected_channel"),
        (update(1, 2).replace('"update"', '"replace"'), "unexpected_shape"),
        (update(1, 2).replace(',"prevSeqId":1', ""), "unexpected_shape"),
        (update(1, 2).replace("}]}", "},{}]}"), "unexpected_shape"),
        ('{"event":"subscribe","arg":{"channel":"tickers","instId":"BTC-USDT"}}', "unexpected_channel"),
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


def test_only_live_instruments_are_listed() -> None:
    body = (
        b'{"code":"0","msg":"","data":[{"instId":"BTC-USDT","state":"live"},{"instId":"OLD-USDT","state":"suspend"}]}'
    )
    assert OKX.listed(body) == {"BTC-USDT"}


def test_an_error_code_inside_a_successful_answer_is_rejected() -> None:
    with pytest.raises(FrameRejected, match="50011: Too Many Requests"):
        OKX.listed(b'{"code":"50011","msg":"Too Many Requests","data":[]}')


def test_captured_books_of_2022_are_distinct_events_that_claim_no_continuity() -> None:
    lines = captured("okx", "books_2022_noseq")
    decoded = [event for frame in lines for event in events(frame)]
    assert [e.data for e in decoded] == lines
    assert len({e.sequence_id for e in decoded}) == len(lines)
    assert {(e.symbol, e.feed, e.follows, e.last) for e in decoded} == {("BTC-USDT", ORDERBOOK, None, None)}


def test_captured_books_of_2025_and_2026_are_one_chain_each() -> None:
    for name in ("public_2025_spot_frames", "public_2026_swap_slice"):
        books = [frame for frame in captured("okx", name) if '"channel":"books",' in frame]
        chain = [event for frame in books for event in events(frame, "NEAR-USDT", "BTC-USDT-SWAP")]
        assert len(chain) >= 2
        assert [e.follows for e in chain[1:]] == [e.last for e in chain[:-1]]


def test_captured_trades_follow_one_another() -> None:
    chain = [event for frame in captured("okx", "trades_2022") for event in events(frame)]
    assert [e.follows for e in chain[1:]] == [e.last for e in chain[:-1]]
    assert all(e.exchange_us is not None and e.exchange_us // 10**9 in (1652459, 1652460) for e in chain)


def test_captured_small_books_are_whole_books() -> None:
    (book,) = events(captured("okx", "books5_2022")[0], "BTC-USDT-SWAP", channel="books5")
    assert (book.sequence_id[:21], book.exchange_us) == ("books5-1653997254735-", 1653997254735000)
    best = [frame for frame in captured("okx", "public_2026_swap_slice") if '"bbo-tbt"' in frame]
    decoded = [event for frame in best for event in events(frame, "BTC-USDT-SWAP", channel="bbo-tbt")]
    assert [e.sequence_id for e in decoded] == ["bbo-tbt-342177336961", "bbo-tbt-342177336986", "bbo-tbt-342177337138"]


def test_captured_answers_are_no_data() -> None:
    for frame in captured("okx", "control"):
        assert all(isinstance(message, Ack | Rejected | Notice) for message in decode(frame))


def test_the_captured_list_of_instruments_is_read() -> None:
    body = json.loads(captured("okx", "rest")[0])["body_raw"]
    assert OKX.listed(body.encode()) == {"BTC-USDT", "ETH-USDT", "OKB-USDT", "OKT-USDT"}
