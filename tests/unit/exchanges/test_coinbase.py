from __future__ import annotations

import json
from collections import Counter

import pytest

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges.base import Ack, Decoder, Message, Notice, Rejected, Request, Subscription
from app.exchanges.coinbase import Coinbase
from app.model import ORDERBOOK, TRADE
from tests.unit.exchanges.golden import captured, events, frames, golden

COINBASE = Coinbase()
BOTH = (ORDERBOOK, TRADE)
BOOK_AUTH = (
    '{"type":"error","message":"Failed to subscribe","reason":"level2, level3, and full channels now require '
    'authentication. https://docs.cloud.coinbase.com/exchange/docs/websocket-auth"}'
)


def subscribed(*symbols: str, feeds: tuple[str, ...] = BOTH) -> Subscription:
    return Subscription(symbols, feeds, "level2_batch", "matches")


def decoder(*symbols: str, feeds: tuple[str, ...] = BOTH) -> Decoder:
    return COINBASE.decoder(subscribed(*(symbols or ("BTC-USD", "ETH-EUR")), feeds=feeds))


def error(reason: str) -> str:
    return json.dumps({"type": "error", "message": "Failed to subscribe", "reason": reason})


@pytest.mark.parametrize("channel", ["level2_batch", "matches"])
def test_golden_frames_become_exactly_the_golden_events(channel: str) -> None:
    frame_decoder = decoder()
    assert [events(frame_decoder.decode(frame)) for frame in frames("coinbase", channel)] == golden("coinbase", channel)


def test_answers_become_control_messages() -> None:
    assert [message for frame in frames("coinbase", "control") for message in decoder().decode(frame)] == [
        Ack("", (("BTC-USD", TRADE),)),
        Ack("", (("BTC-USD", ORDERBOOK), ("ETH-EUR", ORDERBOOK))),
        Notice("status", "no product of ours is subscribed"),
        Notice("heartbeat"),
        Rejected("", "Failed to subscribe: FOO-USD is not a valid product"),
        Rejected("", "Failed to subscribe: No channels provided"),
    ]


def test_an_acknowledgement_speaks_only_for_feeds_that_were_asked_for() -> None:
    everything = {
        "type": "subscriptions",
        "channels": [
            {"name": "level2_batch", "product_ids": ["BTC-USD", "SOL-USD"]},
            {"name": "matches", "product_ids": ["BTC-USD", "SOL-USD"]},
            {"name": "ticker", "product_ids": ["BTC-USD"]},
        ],
    }
    assert decoder("BTC-USD", feeds=(TRADE,)).decode(json.dumps(everything)) == (Ack("", (("BTC-USD", TRADE),)),)


@pytest.mark.parametrize(
    ("frame", "feeds"),
    [
        (error("BTC-USD is not a valid product"), (("BTC-USD", ORDERBOOK), ("BTC-USD", TRADE))),
        (error("level2_batch of BTC-USD is not available"), (("BTC-USD", ORDERBOOK),)),
        (BOOK_AUTH, (("BTC-USD", ORDERBOOK), ("ETH-EUR", ORDERBOOK))),
        (error(" is not a valid product"), ()),
        (error("WBTC-USD is not a valid product"), ()),
        (error("no product matches"), ()),
    ],
)
def test_a_refusal_names_the_feeds_that_its_words_name(frame: str, feeds: tuple[tuple[str, str], ...]) -> None:
    assert [message.feeds for message in decoder().decode(frame) if isinstance(message, Rejected)] == [feeds]


def test_books_have_no_identity_of_their_own_even_where_two_share_a_time() -> None:
    books = [event for line in frames("coinbase", "level2_batch") for event in events(decoder().decode(line))]
    assert {(book.sequence_id, book.follows, book.last) for book in books} == {("", None, None)}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ('{"type":"match","trade_id":7,"product_id":"SOL-USD"}', "unexpected_symbol"),
        ('{"type":"l2update","product_id":"btc-usd","changes":[]}', "unexpected_symbol"),
        ('{"type":"ticker","product_id":"BTC-USD"}', "unexpected_shape"),
        ('{"type":"match","trade_id":"7","product_id":"BTC-USD"}', "unexpected_shape"),
        ('{"type":"match","product_id":"BTC-USD"}', "unexpected_shape"),
        ('{"type":"l2update","product_id":"BTC-USD"}', "unexpected_shape"),
        ('{"type":"snapshot","product_id":"BTC-USD","bids":[]}', "unexpected_shape"),
        ('{"type":"l2update","product_id":"BTC-USD","changes":[],"time":5}', "unexpected_shape"),
        ('{"product_id":"BTC-USD","changes":[]}', "unexpected_shape"),
        ('{"type":"l2update","product_id":"BTC-USD","changes":[', "not_json"),
    ],
)
def test_a_frame_that_is_not_what_it_claims_is_rejected(frame: str, reason: str) -> None:
    with pytest.raises(FrameRejected) as rejected:
        decoder().decode(frame)
    assert rejected.value.reason == reason


@pytest.mark.parametrize(("feeds", "channel"), [((ORDERBOOK,), "matches"), ((TRADE,), "level2_batch")])
def test_a_feed_that_was_not_asked_for_is_rejected(feeds: tuple[str, ...], channel: str) -> None:
    with pytest.raises(FrameRejected, match="unexpected_channel"):
        decoder("BTC-USD", "ETH-EUR", feeds=feeds).decode(frames("coinbase", channel)[0])


def test_every_feed_is_asked_for_alone_and_every_product_brings_a_heartbeat() -> None:
    assert COINBASE.subscribe(subscribed("BTC-USD", "ETH-EUR"), "n") == [
        Request(
            "",
            '{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches","heartbeat"]}',
            (("BTC-USD", TRADE),),
        ),
        Request(
            "", '{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}', (("BTC-USD", ORDERBOOK),)
        ),
        Request(
            "",
            '{"type":"subscribe","product_ids":["ETH-EUR"],"channels":["matches","heartbeat"]}',
            (("ETH-EUR", TRADE),),
        ),
        Request(
            "", '{"type":"subscribe","product_ids":["ETH-EUR"],"channels":["level2_batch"]}', (("ETH-EUR", ORDERBOOK),)
        ),
    ]


def test_a_book_alone_brings_a_heartbeat_too() -> None:
    assert COINBASE.subscribe(subscribed("BTC-USD", feeds=(ORDERBOOK,)), "n") == [
        Request(
            "",
            '{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2_batch","heartbeat"]}',
            (("BTC-USD", ORDERBOOK),),
        )
    ]


def test_resubscribing_a_book_brings_its_snapshot_again() -> None:
    assert COINBASE.resubscribe(subscribed("BTC-USD", "ETH-EUR"), "BTC-USD", ORDERBOOK, "n") == [
        Request("", '{"type":"unsubscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}', ()),
        Request(
            "", '{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}', (("BTC-USD", ORDERBOOK),)
        ),
    ]


@pytest.mark.parametrize("symbol", ["BTCUSD", "BTC/USD", "BTC_USD", "BTC-", "-USD", "BTC-USD-X", "BTC-USD\n", ""])
def test_another_spelling_is_refused_with_the_right_one(symbol: str) -> None:
    with pytest.raises(InvalidSymbol, match="upper case with a dash, such as BTC-USD"):
        COINBASE.canonical(symbol)


def test_a_symbol_is_kept_in_upper_case() -> None:
    assert COINBASE.canonical("btc-usd") == "BTC-USD"


def test_listed_symbols_are_those_open_for_trading() -> None:
    products = [
        {"id": "BTC-USD", "status": "online", "trading_disabled": False},
        {"id": "OLD-USD", "status": "delisted", "trading_disabled": True},
        {"id": "OFF-USD", "status": "online", "trading_disabled": True},
    ]
    assert COINBASE.listed(json.dumps(products).encode()) == {"BTC-USD"}


def test_captured_books_keep_every_frame_although_times_repeat() -> None:
    symbols = ("SKL-USD", "DASH-BTC", "NMR-EUR", "BAND-GBP", "NU-GBP")
    lines = captured("coinbase", "exchange_level2")
    frame_decoder = decoder(*symbols)
    books = [event for line in lines for event in events(frame_decoder.decode(line))]
    assert [book.data for book in books] == lines
    assert Counter(book.symbol for book in books) == Counter(json.loads(line)["product_id"] for line in lines)
    timed = [(book.symbol, book.exchange_us) for book in books if book.exchange_us is not None]
    assert len(set(timed)) < len(timed)


@pytest.mark.parametrize("name", ["exchange_matches", "exchange_2026_slice"])
def test_captured_trades_count_one_by_one_in_each_product(name: str) -> None:
    lines = captured("coinbase", name)
    symbols = tuple({json.loads(line)["product_id"] for line in lines})
    frame_decoder = decoder(*symbols)
    all_events = [event for line in lines for event in events(frame_decoder.decode(line))]
    assert [event.data for event in all_events] == lines
    for symbol in symbols:
        trades = [event for event in all_events if event.symbol == symbol and event.feed == TRADE]
        assert [trade.follows for trade in trades[1:]] == [trade.last for trade in trades[:-1]]


def test_captured_acknowledgements_list_everything_subscribed_so_far() -> None:
    lines = captured("coinbase", "exchange_subscriptions")
    answers: list[Message] = [message for line in lines for message in decoder("SKL-USD").decode(line)]
    assert answers == [
        Ack("", (("SKL-USD", ORDERBOOK),)),
        Ack("", (("SKL-USD", ORDERBOOK),)),
        Ack("", (("SKL-USD", TRADE), ("SKL-USD", ORDERBOOK))),
    ]


def test_captured_refusals_are_told_in_the_words_of_the_venue() -> None:
    for line in captured("coinbase", "exchange_control"):
        (answer,) = decoder("BTC-USD").decode(line)
        assert isinstance(answer, Rejected)
        assert json.loads(line)["reason"].strip() in answer.message


@pytest.mark.parametrize("name", ["exchange_ticker", "advanced_2026_slice"])
def test_captured_frames_of_other_channels_and_of_the_other_feed_are_rejected(name: str) -> None:
    for line in captured("coinbase", name):
        with pytest.raises(FrameRejected):
            decoder(*{"BTC-USD", "ETH-USD"}).decode(line)
