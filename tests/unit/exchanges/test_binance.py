from __future__ import annotations

import json

import pytest

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges.base import Ack, Decoded, Decoder, Notice, Rejected, Request, Subscription
from app.exchanges.binance import Binance
from app.model import ORDERBOOK, TRADE
from tests.unit.exchanges.golden import captured, events, frames, golden

BINANCE = Binance()
BOTH = (ORDERBOOK, TRADE)


def subscribed(*symbols: str, feeds: tuple[str, ...] = BOTH, channel: str = "depth20@100ms") -> Subscription:
    return Subscription(symbols, feeds, channel, "trade")


def decoder(*symbols: str, feeds: tuple[str, ...] = BOTH, channel: str = "depth20@100ms") -> Decoder:
    return BINANCE.decoder(subscribed(*(symbols or ("btcusdt", "ethusdt")), feeds=feeds, channel=channel))


def decoded(frame_decoder: Decoder, lines: list[str]) -> list[Decoded]:
    return [event for line in lines for event in events(frame_decoder.decode(line))]


@pytest.mark.parametrize("channel", ["depth20@100ms", "depth@100ms", "trade"])
def test_golden_frames_become_exactly_the_golden_events(channel: str) -> None:
    book = channel if channel.startswith("depth") else "depth20@100ms"
    frame_decoder = decoder(channel=book)
    assert [events(frame_decoder.decode(frame)) for frame in frames("binance", channel)] == golden("binance", channel)


def test_answers_become_control_messages() -> None:
    assert [message for frame in frames("binance", "control") for message in decoder().decode(frame)] == [
        Ack("n-1"),
        Ack("7"),
        Notice("status", '["btcusdt@trade"]'),
        Rejected("", "Invalid request: unknown variant (code 2)"),
        Rejected("n-2", "Unknown property (code 0)"),
        Rejected("n-3", "Invalid value type (code 1)"),
        Notice("shutdown", "the server is about to restart"),
        Notice("shutdown", "the server is about to restart"),
    ]


def test_a_partial_book_has_no_exchange_time_and_no_continuity() -> None:
    frame = '{"stream":"btcusdt@depth5","data":{"lastUpdateId":160,"bids":[["1","2"]],"asks":[]}}'
    assert decoder("btcusdt", channel="depth5").decode(frame) == (
        Decoded("btcusdt", ORDERBOOK, "depth5-160", None, frame, None, None, False),
    )


def test_a_key_after_the_payload_does_not_end_up_in_the_trade() -> None:
    trade = '{"e":"trade","s":"BTCUSDT","t":7,"T":1790000000455}'
    frame = f'{{"stream":"btcusdt@trade","data":{trade},"extra":{{"a":1}}}}'
    assert decoder("btcusdt").decode(frame) == (Decoded("btcusdt", TRADE, "7", 1790000000455000, trade, 6, 7, True),)


def test_a_trade_without_a_believable_time_keeps_its_place_and_has_no_time() -> None:
    frame = '{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":7,"T":0}}'
    assert [event.exchange_us for event in events(decoder("btcusdt").decode(frame))] == [None]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ('{"stream":"xrpusdt@trade","data":{"e":"trade","s":"XRPUSDT","t":7,"T":1}}', "unexpected_channel"),
        ('{"stream":"btcusdt@bookTicker","data":{"u":1}}', "unexpected_channel"),
        ('{"stream":"btcusdt@trade","data":{"e":"trade","s":"ETHUSDT","t":7,"T":1}}', "unexpected_symbol"),
        ('{"stream":"BTCUSDT@trade","data":{"e":"trade","s":"BTCUSDT","t":7,"T":1}}', "unexpected_channel"),
        ('{"stream":"btcusdt@trade","data":{"e":"aggTrade","s":"BTCUSDT","t":7,"T":1}}', "unexpected_shape"),
        ('{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":"7","T":1}}', "unexpected_shape"),
        ('{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":-7,"T":1}}', "unexpected_shape"),
        ('{"stream":"btcusdt@trade"}', "unexpected_shape"),
        ('{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":1,"bids":[]}}', "unexpected_shape"),
        ('{"e":"trade","s":"BTCUSDT","t":7,"T":1790000000455}', "unexpected_shape"),
        ("{}", "unexpected_shape"),
        ('{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":7,"T":1', "not_json"),
        ('{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":7,"T":1}]', "not_json"),
        ('{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":7,"T":1},}', "not_json"),
        ('{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":1,"bids":[}}', "not_json"),
    ],
)
def test_a_frame_that_is_not_what_it_claims_is_rejected(frame: str, reason: str) -> None:
    with pytest.raises(FrameRejected) as rejected:
        decoder().decode(frame)
    assert rejected.value.reason == reason


def test_a_diff_that_names_another_symbol_than_its_stream_is_rejected() -> None:
    frame = frames("binance", "depth@100ms")[0].replace('"BTCUSDT"', '"ETHUSDT"')
    with pytest.raises(FrameRejected, match="unexpected_symbol: ETHUSDT on a stream of btcusdt"):
        decoder(channel="depth@100ms").decode(frame)


def test_a_feed_that_was_not_asked_for_is_rejected() -> None:
    with pytest.raises(FrameRejected):
        decoder("btcusdt", "ethusdt", feeds=(ORDERBOOK,)).decode(frames("binance", "trade")[0])


def test_subscribing_names_every_stream_and_carries_an_id() -> None:
    assert BINANCE.subscribe(subscribed("btcusdt", "ethusdt"), "n") == [
        Request(
            "n-1",
            '{"method":"SUBSCRIBE","params":["btcusdt@depth20@100ms","btcusdt@trade",'
            '"ethusdt@depth20@100ms","ethusdt@trade"],"id":"n-1"}',
            (("btcusdt", ORDERBOOK), ("btcusdt", TRADE), ("ethusdt", ORDERBOOK), ("ethusdt", TRADE)),
        )
    ]


def test_a_full_connection_subscribes_in_messages_that_binance_answers() -> None:
    symbols = tuple(f"{number:020}" for number in range(BINANCE.limits.markets_per_connection))
    requests = BINANCE.subscribe(subscribed(*symbols), "f" * 32)
    streams = [stream for request in requests for stream in json.loads(request.frame)["params"]]
    assert streams == [f"{symbol}@{channel}" for symbol in symbols for channel in ("depth20@100ms", "trade")]
    assert len(streams) <= 1024
    assert max(len(request.frame.encode()) for request in requests) <= 4088
    assert max(len(request.id) for request in requests) <= 36


def test_resubscribing_leaves_and_asks_again_for_one_stream_only() -> None:
    assert BINANCE.resubscribe(subscribed("btcusdt", "ethusdt"), "ethusdt", TRADE, "n") == [
        Request("n-u", '{"method":"UNSUBSCRIBE","params":["ethusdt@trade"],"id":"n-u"}', ()),
        Request("n-s", '{"method":"SUBSCRIBE","params":["ethusdt@trade"],"id":"n-s"}', (("ethusdt", TRADE),)),
    ]


@pytest.mark.parametrize(
    ("ws_url", "endpoint"),
    [
        ("wss://stream.binance.com:9443", "wss://stream.binance.com:9443/stream"),
        ("wss://stream.binance.com:9443/", "wss://stream.binance.com:9443/stream"),
        ("wss://stream.binance.com:9443/ws", "wss://stream.binance.com:9443/stream"),
        ("wss://stream.binance.com:9443/stream", "wss://stream.binance.com:9443/stream"),
        (
            "wss://data-stream.binance.vision?timeUnit=MICROSECOND",
            "wss://data-stream.binance.vision/stream?timeUnit=MICROSECOND",
        ),
        ("wss://stream.binance.com:9443/stream?streams=btcusdt@trade", "wss://stream.binance.com:9443/stream"),
    ],
)
def test_the_endpoint_is_the_combined_one_and_names_no_stream(ws_url: str, endpoint: str) -> None:
    assert BINANCE.endpoint(ws_url, subscribed("btcusdt")) == endpoint


@pytest.mark.parametrize("symbol", ["BTC-USDT", "btc/usdt", "btc_usdt", "b", "x" * 21, "btcusdt\n", "btcu\u212adt"])
def test_another_spelling_is_refused_with_the_right_one(symbol: str) -> None:
    with pytest.raises(InvalidSymbol, match="lower case without a separator, such as btcusdt"):
        BINANCE.canonical(symbol)


def test_a_symbol_is_kept_in_lower_case() -> None:
    assert BINANCE.canonical("BTCUSDT") == "btcusdt"


def test_listed_symbols_are_those_in_trading() -> None:
    body = b'{"symbols":[{"symbol":"BTCUSDT","status":"TRADING"},{"symbol":"OLDBTC","status":"BREAK"}]}'
    assert BINANCE.listed(body) == {"btcusdt"}


def test_an_error_in_place_of_the_list_is_no_list() -> None:
    with pytest.raises(FrameRejected):
        BINANCE.listed(b'{"code":-1003,"msg":"Too many requests"}')


def test_captured_diffs_of_four_markets_continue_without_a_hole() -> None:
    symbols = ("nknusdt", "blzeth", "lrcbtc", "runeeur")
    lines = captured("binance", "spot_depth_diff_combined")
    diffs = decoded(decoder(*symbols, feeds=(ORDERBOOK,), channel="depth@100ms"), lines)
    assert [diff.data for diff in diffs] == lines
    for symbol in symbols:
        own = [diff for diff in diffs if diff.symbol == symbol]
        assert [diff.follows for diff in own[1:]] == [diff.last for diff in own[:-1]]


def test_a_captured_session_continues_in_both_feeds_and_leaves_out_what_was_not_asked_for() -> None:
    lines = captured("binance", "spot_testnet_2026_session")
    asked = [line for line in lines if "@bookTicker" not in line]
    session = decoded(decoder("btcusdt", channel="depth@100ms"), asked)
    trades = [event for event in session if event.feed == TRADE]
    assert [event.data in line for event, line in zip(session, asked, strict=True)] == [True] * len(asked)
    assert [trade.sequence_id for trade in trades] == [str(number) for number in range(388510, 388517)]
    for line in set(lines) - set(asked):
        with pytest.raises(FrameRejected, match="unexpected_channel"):
            decoder("btcusdt", channel="depth@100ms").decode(line)


def test_a_captured_partial_book_is_whole() -> None:
    (line,) = (line for line in captured("binance", "spot_partial_depth20_combined") if line)
    assert decoded(decoder("ethusdt", channel="depth20"), [line]) == [
        Decoded("ethusdt", ORDERBOOK, "depth20-17044571457", None, line)
    ]


def test_thousands_of_captured_trades_count_one_by_one() -> None:
    trades = decoded(decoder("btcusd_perp"), captured("binance", "coinm_trade_combined"))
    first = int(trades[0].sequence_id)
    assert [trade.last for trade in trades] == list(range(first, first + len(trades)))


def test_captured_answers_are_control_messages() -> None:
    for line in captured("binance", "control"):
        assert events(decoder().decode(line)) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"code":-1121,"msg":"Invalid symbol."}', b"\xff", b'{"lastUpdateId":"7","bids":[],"asks":[]}'],
)
def test_an_answer_that_is_no_book_is_refused(body: bytes) -> None:
    with pytest.raises(FrameRejected):
        BINANCE.asked_book("btcusdt", body)


def test_a_book_that_was_asked_for_is_kept_as_it_came() -> None:
    body = '{"lastUpdateId":160, "bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}'
    book = BINANCE.asked_book("btcusdt", body.encode())
    assert book == Decoded("btcusdt", ORDERBOOK, "rest-160", None, body, None, 160)
    paths = [BINANCE.book_path(subscribed("btcusdt", channel=c), "btcusdt") for c in BINANCE.orderbook_channels]
    assert paths == [None] * 6 + ["/api/v3/depth?symbol=BTCUSDT&limit=1000"] * 2
