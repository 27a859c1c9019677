from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges import EXCHANGES, SOURCES, exchange_of
from app.exchanges.base import Ack, Counted, Decoded, Decoder, Message, Notice, Rejected, Request, Subscription
from app.exchanges.coinbase_advanced import CoinbaseAdvanced
from app.model import ORDERBOOK, TRADE
from app.sequence import Continuity, Verdict
from tests.unit.exchanges.golden import captured, events, frames, golden

ADVANCED = CoinbaseAdvanced()
BOTH = (ORDERBOOK, TRADE)


def subscribed(*symbols: str, feeds: tuple[str, ...] = BOTH) -> Subscription:
    return Subscription(symbols, feeds, "level2", "market_trades")


def decoder(*symbols: str, feeds: tuple[str, ...] = BOTH) -> Decoder:
    return ADVANCED.decoder(subscribed(*(symbols or ("BTC-USD", "ETH-EUR")), feeds=feeds))


def book(number: int, *products: str, kind: str = "update") -> str:
    rows = [{"type": kind, "product_id": product, "updates": []} for product in products]
    return json.dumps({"channel": "l2_data", "sequence_num": number, "events": rows})


def trades(number: int, *ids: int, product: str = "BTC-USD") -> str:
    rows = [{"product_id": product, "trade_id": str(id), "price": "1", "side": "BUY"} for id in ids]
    frame = {"channel": "market_trades", "sequence_num": number, "events": [{"type": "update", "trades": rows}]}
    return json.dumps(frame, separators=(",", ":"))


def numbers(messages: Sequence[Message]) -> list[int]:
    return [message.number for message in messages if isinstance(message, Counted)]


# the seam


def test_a_source_is_chosen_by_name_and_none_is_the_exchange_of_the_registry() -> None:
    assert exchange_of("coinbase", None) is exchange_of("coinbase", "exchange") is EXCHANGES["coinbase"]
    assert isinstance(exchange_of("coinbase", "advanced"), CoinbaseAdvanced)
    assert exchange_of("okx", None) is EXCHANGES["okx"]


def test_every_source_stores_its_markets_under_the_name_of_its_exchange() -> None:
    assert [(name, source) for (name, source), found in SOURCES.items() if found.name != name] == []
    assert {found.canonical("btc-usd") for found in SOURCES.values()} == {"BTC-USD"}


# frames


@pytest.mark.parametrize("channel", ["level2", "market_trades"])
def test_golden_frames_become_exactly_the_golden_events(channel: str) -> None:
    folder, frame_decoder = "coinbase_advanced", decoder()
    assert [events(frame_decoder.decode(frame)) for frame in frames(folder, channel)] == golden(folder, channel)


@pytest.mark.parametrize("channel", ["level2", "market_trades"])
def test_every_frame_of_data_tells_its_number_before_its_events(channel: str) -> None:
    for frame in frames("coinbase_advanced", channel):
        first, *rest = decoder().decode(frame)
        assert first == Counted(json.loads(frame)["sequence_num"])
        assert {type(message) for message in rest} == {Decoded}


def test_answers_and_heartbeats_become_control_messages_and_are_counted_where_they_have_a_number() -> None:
    books = (("BTC-USD", ORDERBOOK), ("ETH-EUR", ORDERBOOK))
    assert [list(decoder().decode(frame)) for frame in frames("coinbase_advanced", "control")] == [
        [Counted(1), Notice("status", "no product of ours is subscribed")],
        [Counted(2), Ack("", (*books, ("BTC-USD", TRADE)))],
        [Counted(29), Notice("heartbeat")],
        [Counted(30), Notice("heartbeat")],
        [Counted(4), Notice("status", "no trade yet")],
        [Rejected("", "failure to subscribe")],
        [Counted(31), Rejected("", "failure to subscribe: FOO-USD is not a valid product")],
    ]


def test_a_refusal_names_both_feeds_of_the_product_in_its_words() -> None:
    error = '{"type":"error","message":"failure to subscribe","reason":"ETH-EUR is not a valid product"}'
    (answer,) = decoder().decode(error)
    assert isinstance(answer, Rejected)
    assert answer.feeds == (("ETH-EUR", ORDERBOOK), ("ETH-EUR", TRADE))


def test_a_frame_of_two_products_is_one_event_for_each_with_the_whole_frame() -> None:
    frame = book(7, "ETH-EUR", "BTC-USD", "ETH-EUR")
    found = events(decoder().decode(frame))
    assert [(event.symbol, event.data) for event in found] == [("ETH-EUR", frame), ("BTC-USD", frame)]


def test_books_have_no_identity_and_only_a_snapshot_says_that_it_starts_anew() -> None:
    continuity = Continuity()
    frame_decoder = decoder("BTC-USD")
    lines = [
        book(3, "BTC-USD", kind="snapshot"),
        book(4, "BTC-USD"),
        book(9, "BTC-USD"),
        book(10, "BTC-USD", kind="snapshot"),
    ]
    found = [event for line in lines for event in events(frame_decoder.decode(line))]
    assert {event.sequence_id for event in found} == {""}
    verdicts = [continuity.check(event, at)[0] for at, event in enumerate(found)]
    assert verdicts == [Verdict.RESET, Verdict.UNKNOWABLE, Verdict.UNKNOWABLE, Verdict.RESET]


@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=4), st.randoms())
def test_trades_that_count_one_by_one_are_continuous_however_the_venue_cuts_and_turns_its_frames(
    cuts: list[list[int]], chance: object
) -> None:
    frame_decoder, continuity = decoder("BTC-USD"), Continuity()
    next_id = 100
    texts = []
    for number, sizes in enumerate(cuts):
        ids = list(range(next_id, next_id + sum(sizes)))
        next_id += len(ids)
        ids.sort(key=lambda id: chance.random())  # type: ignore[attr-defined]
        found = events(frame_decoder.decode(trades(number, *ids)))
        assert [event.sequence_id for event in found] == sorted(map(str, ids))
        verdicts = [continuity.check(event, number)[0] for event in found]
        assert set(verdicts) <= {Verdict.OK, Verdict.RESET}
        texts += [json.loads(event.data)["trade_id"] for event in found]
    assert texts == [str(id) for id in range(100, next_id)]


def test_the_trades_of_a_snapshot_after_a_reconnect_overlap_and_the_first_missing_one_shows() -> None:
    frame_decoder, continuity = decoder("BTC-USD"), Continuity()
    found = [
        event for ids in ((12, 11, 10), (16, 15, 14, 12, 11)) for event in events(frame_decoder.decode(trades(0, *ids)))
    ]
    checked = [(event.last, *continuity.check(event, 1)) for event in found]
    assert [(id, verdict) for id, verdict, _ in checked] == [
        (10, Verdict.RESET), (11, Verdict.OK), (12, Verdict.OK),
        (11, Verdict.OUT_OF_ORDER), (12, Verdict.DUPLICATE), (14, Verdict.GAP), (15, Verdict.OK), (16, Verdict.OK),
    ]  # fmt: skip
    assert [(hole.from_id, hole.to_id, hole.size) for *_, hole in checked if hole] == [(13, 13, 1)]


@pytest.mark.parametrize(
    ("frame", "reason", "number"),
    [
        pytest.param(book(5, "BTC-USD", "SOL-USD"), "unexpected_symbol", 5, id="a product nobody asked for"),
        pytest.param(trades(5, 1, product="SOL-USD"), "unexpected_symbol", 5, id="a trade nobody asked for"),
        pytest.param('{"channel":"candles","sequence_num":5,"events":[]}', "unexpected_shape", 5, id="another channel"),
        pytest.param('{"channel":"market_trades","sequence_num":5,"events":[]}', "unexpected_shape", 5, id="no event"),
        pytest.param('{"channel":"market_trades","sequence_num":5}', "unexpected_shape", 5, id="trades, broken"),
        pytest.param(trades(5, 1).replace('"1",', '"x",', 1), "unexpected_shape", 5, id="one trade without its id"),
        pytest.param('{"channel":"subscriptions","sequence_num":5}', "unexpected_shape", 5, id="an answer, broken"),
        pytest.param(
            '{"channel":"l2_data","sequence_num":5,"events":[]}', "unexpected_shape", 5, id="books of nothing"
        ),
        pytest.param('{"channel":"l2_data","sequence_num":5}', "unexpected_shape", None, id="a book, broken"),
        pytest.param(book(5, "BTC-USD", kind="delta"), "unexpected_shape", None, id="a book of an unknown kind"),
        pytest.param(book(5, "BTC-USD")[:-1], "not_json", None, id="half a frame"),
        pytest.param('{"channel":"heartbeats","sequence_num":"5"}', "unexpected_shape", None, id="no number"),
        pytest.param('{"sequence_num":5}', "unexpected_shape", 5, id="no channel"),
    ],
)
def test_a_rejected_frame_keeps_its_number_unless_a_book_may_have_changed_in_it(
    frame: str, reason: str, number: int | None
) -> None:
    with pytest.raises(FrameRejected) as rejected:
        decoder().decode(frame)
    assert (rejected.value.reason, rejected.value.number) == (reason, number)


@pytest.mark.parametrize(("feeds", "channel"), [((ORDERBOOK,), "market_trades"), ((TRADE,), "level2")])
def test_a_feed_that_was_not_asked_for_is_rejected_and_counted(feeds: tuple[str, ...], channel: str) -> None:
    frame = frames("coinbase_advanced", channel)[0]
    with pytest.raises(FrameRejected, match="unexpected_channel") as rejected:
        decoder("BTC-USD", "ETH-EUR", feeds=feeds).decode(frame)
    assert rejected.value.number == json.loads(frame)["sequence_num"]


# products in USDC


def test_a_product_in_usdc_is_stored_as_it_was_asked_for_although_the_venue_delivers_the_one_in_usd() -> None:
    frame_decoder = decoder("BTC-USDC")
    for product in ("BTC-USD", "BTC-USDC"):
        lines = (book(1, product), trades(2, 7, product=product))
        assert [event.symbol for line in lines for event in events(frame_decoder.decode(line))] == ["BTC-USDC"] * 2
    answer = (
        '{"channel":"subscriptions","sequence_num":3,"events":[{"subscriptions":{"level2":["BTC-USD","BTC-USDC"]}}]}'
    )
    assert list(frame_decoder.decode(answer)) == [Counted(3), Ack("", (("BTC-USDC", ORDERBOOK),))]


def test_the_two_products_in_usdc_with_books_of_their_own_are_themselves() -> None:
    frame_decoder = decoder("USDT-USDC", "EURC-USDC")
    lines = [book(1, "USDT-USDC"), book(2, "EURC-USDC")]
    assert [events(frame_decoder.decode(line))[0].symbol for line in lines] == ["USDT-USDC", "EURC-USDC"]
    with pytest.raises(FrameRejected, match="unexpected_symbol"):
        frame_decoder.decode(book(3, "USDT-USD"))


def test_where_both_are_on_a_connection_each_frame_is_the_one_it_names() -> None:
    frame_decoder = decoder("BTC-USDC", "BTC-USD")
    lines = (book(1, "BTC-USD"), book(2, "BTC-USDC"))
    assert [events(frame_decoder.decode(line))[0].symbol for line in lines] == ["BTC-USD", "BTC-USDC"]


@pytest.mark.parametrize(
    ("symbol", "delivered"),
    [
        ("BTC-USDC", "BTC-USD"),
        ("BTC-USD", "BTC-USD"),
        ("USDT-USDC", "USDT-USDC"),
        ("EURC-USDC", "EURC-USDC"),
        ("USDC-EUR",) * 2,
    ],
)
def test_it_says_under_which_name_a_symbol_is_delivered(symbol: str, delivered: str) -> None:
    assert ADVANCED.delivered(symbol) == delivered


# requests


def test_heartbeats_come_first_and_every_feed_is_asked_for_alone_in_a_request_that_may_be_signed() -> None:
    def asked(channel: str, symbol: str, feed: str) -> Request:
        frame = f'{{"type":"subscribe","product_ids":["{symbol}"],"channel":"{channel}"}}'
        return Request("", frame, ((symbol, feed),), sign=True)

    assert ADVANCED.subscribe(subscribed("BTC-USD", "ETH-EUR"), "n") == [
        Request("", '{"type":"subscribe","channel":"heartbeats"}', (), sign=True),
        asked("market_trades", "BTC-USD", TRADE),
        asked("level2", "BTC-USD", ORDERBOOK),
        asked("market_trades", "ETH-EUR", TRADE),
        asked("level2", "ETH-EUR", ORDERBOOK),
    ]


def test_resubscribing_a_book_brings_its_snapshot_again() -> None:
    assert ADVANCED.resubscribe(subscribed("BTC-USD", "ETH-EUR"), "BTC-USD", ORDERBOOK, "n") == [
        Request("", '{"type":"unsubscribe","product_ids":["BTC-USD"],"channel":"level2"}', (), sign=True),
        Request(
            "",
            '{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}',
            (("BTC-USD", ORDERBOOK),),
            sign=True,
        ),
    ]


@pytest.mark.parametrize("symbol", ["BTCUSD", "BTC/USD", "BTC-", "-USD", "BTC-USD-X", "BTC-USD\n", ""])
def test_another_spelling_is_refused_with_the_right_one(symbol: str) -> None:
    with pytest.raises(InvalidSymbol, match="upper case with a dash, such as BTC-USD"):
        ADVANCED.canonical(symbol)


def test_listed_symbols_are_those_open_for_trading_and_those_that_deliver_them() -> None:
    products = [
        {"product_id": "BTC-USD", "status": "online", "trading_disabled": False, "alias_to": ["BTC-USDC"]},
        {"product_id": "ETH-EUR", "status": "online", "trading_disabled": False, "alias_to": []},
        {"product_id": "OLD-USD", "status": "delisted", "alias_to": ["OLD-USDC"]},
        {"product_id": "OFF-USD", "status": "online", "trading_disabled": True},
        {"product_id": "BIT-28NOV26-CDE", "status": "online", "trading_disabled": False},
    ]
    body = json.dumps({"products": products, "num_products": 5}).encode()
    assert ADVANCED.listed(body) == {"BTC-USD", "BTC-USDC", "ETH-EUR"}


def test_a_part_of_the_list_condemns_no_symbol() -> None:
    body = json.dumps({"products": [{"product_id": "BTC-USD", "status": "online"}], "num_products": 2}).encode()
    with pytest.raises(FrameRejected, match="incomplete: 1 of 2 products"):
        ADVANCED.listed(body)


# captured


def test_captured_frames_keep_their_text_and_the_connection_counts_them_all() -> None:
    lines = captured("coinbase", "advanced_2026_slice")
    frame_decoder = decoder("BTC-USD", "ETH-USD")
    messages = [frame_decoder.decode(line) for line in lines]
    counted = [number for found in messages for number in numbers(found)]
    assert counted == [json.loads(line)["sequence_num"] for line in lines]
    assert {later - earlier for earlier, later in pairwise(counted)} == {1}
    for line, found in zip(lines, messages, strict=True):
        told = json.loads(line)
        if told["channel"] == "l2_data":
            products = list(dict.fromkeys(event["product_id"] for event in told["events"]))
            assert [(event.symbol, event.data) for event in events(found)] == [(product, line) for product in products]
        elif told["channel"] == "market_trades":
            texts = [trade for event in told["events"] for trade in event["trades"]]
            assert [json.loads(event.data) for event in events(found)] == texts
            assert all(event.data in line for event in events(found))
        else:
            assert events(found) == []
        assert all(event.exchange_us for event in events(found))


def test_captured_answers_are_understood() -> None:
    first, second = captured("coinbase", "advanced_control")
    frame_decoder = decoder("ETH-USDT")
    assert list(frame_decoder.decode(first)) == [Counted(1), Ack("", (("ETH-USDT", TRADE),))]
    assert list(frame_decoder.decode(second)) == [Rejected("", "failure to subscribe")]


@pytest.mark.parametrize("name", ["exchange_2026_slice", "exchange_matches", "exchange_ticker"])
def test_captured_frames_of_the_other_feed_are_rejected(name: str) -> None:
    for line in captured("coinbase", name):
        with pytest.raises(FrameRejected):
            decoder("BTC-USD", "ETH-USD").decode(line)
