"""What every registered exchange promises (app/exchanges/base.py), asked of each with its own frames.

A new exchange is under this suite by its line in the registry and its frames in `tests/fixtures/frames/<name>/`, another
source of one by its line and its frames in `<name>_<source>/`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges import EXCHANGES, SOURCES
from app.exchanges.base import Decoded, Decoder, Exchange, Subscription
from app.model import ORDERBOOK, TRADE
from tests.unit.exchanges.golden import channels, events, frames, golden, subscription

FEEDS = (ORDERBOOK, TRADE)
#: What may stand in a path, a key and a label.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: A connection carries all its markets within this time, at the pace its limits allow.
SUBSCRIBED_WITHIN_S = 30
#: Largest client message, in bytes: the least that any of the venues is known to take (Binance).
REQUEST_BYTES = 4096


def named(name: str, exchange: Exchange) -> Exchange:
    """`exchange` under the name of the folder that has its frames."""
    found = type(type(exchange).__name__, (type(exchange),), {"name": name})()
    assert isinstance(found, Exchange)
    return found


#: Every source of every exchange, by the folder of its frames.
SUITE: dict[str, Exchange] = {
    **EXCHANGES,
    **{f"{n}_{s}": named(f"{n}_{s}", found) for (n, s), found in SOURCES.items() if found is not EXCHANGES[n]},
}

each_exchange = pytest.mark.parametrize("exchange", SUITE.values(), ids=SUITE)
each_channel = pytest.mark.parametrize(
    ("exchange", "channel"),
    [pytest.param(e, channel, id=f"{e.name}-{channel}") for e in SUITE.values() for channel in channels(e)],
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def example_symbol(exchange: Exchange) -> str:
    """The last word of `symbol_example`."""
    return exchange.symbol_example.split()[-1]


def some_symbols(exchange: Exchange, count: int) -> tuple[str, ...]:
    """`count` different canonical symbols: the example with a number behind its first letter."""
    example = example_symbol(exchange)
    return tuple(exchange.canonical(f"{example[0]}{number}{example[1:]}") for number in range(count))


def checked_events(decoder: Decoder, asked: Subscription, frame: str) -> list[Decoded]:
    """The events of a frame, each of them such as may be stored; [] where the frame was rejected."""
    try:
        messages = decoder.decode(frame)
    except FrameRejected as rejected:
        assert re.fullmatch(r"[a-z_]+", rejected.reason)
        return []
    for event in events(messages):
        assert event.symbol in asked.symbols
        assert event.feed in asked.feeds
        assert event.data in frame
        assert event.exchange_us is None or 0 < event.exchange_us < 2**63
        assert event.follows is None or event.last is not None
        assert event.sequence_id or event.feed == ORDERBOOK
    return events(messages)


@each_exchange
def test_an_exchange_is_registered_under_its_name_with_frames_for_its_defaults(exchange: Exchange) -> None:
    assert SUITE[exchange.name] is exchange
    assert SAFE_NAME.fullmatch(exchange.name)
    assert {exchange.orderbook_channels[0], exchange.trade_channels[0]} <= set(channels(exchange))
    assert not set(exchange.orderbook_channels) & set(exchange.trade_channels)


@each_exchange
def test_addresses_are_encrypted_and_limits_positive(exchange: Exchange) -> None:
    assert exchange.ws_url.startswith("wss://")
    assert exchange.rest_url.startswith("https://")
    assert exchange.symbols_path.startswith("/")
    assert (
        min(exchange.limits.markets_per_connection, exchange.limits.messages_per_s, exchange.limits.idle_timeout_s) > 0
    )
    assert exchange.heartbeat is None or 0 < exchange.heartbeat.every_s < exchange.limits.idle_timeout_s


@each_exchange
def test_the_example_of_a_symbol_is_canonical(exchange: Exchange) -> None:
    assert exchange.canonical(example_symbol(exchange)) == example_symbol(exchange)


@each_exchange
@settings(deadline=None)
@given(symbol=st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9]{1,12}[-/_.]?[A-Za-z0-9]{0,12}\n?", fullmatch=True))
def test_a_symbol_is_refused_or_gets_one_spelling_that_is_safe_everywhere(exchange: Exchange, symbol: str) -> None:
    try:
        canonical = exchange.canonical(symbol)
    except InvalidSymbol as refused:
        assert (refused.exchange, refused.symbol) == (exchange.name, symbol)
        return
    assert exchange.canonical(canonical) == canonical
    assert canonical.casefold() == symbol.casefold()
    assert SAFE_NAME.fullmatch(canonical)


@each_exchange
@pytest.mark.parametrize(
    "symbol",
    [
        "",
        " ",
        "..",
        "../etc",
        "a/b",
        "a\\b",
        "BTC USDT",
        "BTC-USDT\n",
        "BTC\0USDT",
        "%2e%2e",
        "ＢＴＣ-ＵＳＤ",
        "\u0412TC-USD",
        "x" * 100,
        "B" * 40 + "-" + "C" * 40,
        "-",
        "--",
        "BTC-USD;DROP",
        "{}",
        "*",
    ],
)
def test_what_cannot_be_a_symbol_is_refused(exchange: Exchange, symbol: str) -> None:
    with pytest.raises(InvalidSymbol):
        exchange.canonical(symbol)


@each_exchange
@settings(max_examples=25, deadline=None)
@given(draw=st.data())
def test_a_subscription_asks_for_each_feed_once_within_the_limits(exchange: Exchange, draw: st.DataObject) -> None:
    count = draw.draw(
        st.integers(1, exchange.limits.markets_per_connection) | st.just(exchange.limits.markets_per_connection)
    )
    asked = Subscription(
        some_symbols(exchange, count),
        draw.draw(st.sampled_from([FEEDS, FEEDS[:1], FEEDS[1:]])),
        draw.draw(st.sampled_from(exchange.orderbook_channels)),
        draw.draw(st.sampled_from(exchange.trade_channels)),
    )
    requests = exchange.subscribe(asked, "0123456789abcdef" * 2)
    covered = [feed for request in requests for feed in request.feeds]
    assert sorted(covered) == sorted((symbol, feed) for symbol in asked.symbols for feed in asked.feeds)
    for request in requests:
        json.loads(request.frame)
        assert len(request.frame.encode()) <= REQUEST_BYTES
        assert all(symbol in request.frame for symbol, _ in request.feeds)
    named = [request.id for request in requests if request.id]
    assert sorted(set(named)) == sorted(named)
    assert len(requests) / exchange.limits.messages_per_s <= SUBSCRIBED_WITHIN_S


@each_exchange
@pytest.mark.parametrize("feed", FEEDS)
def test_starting_one_feed_anew_asks_for_that_feed(exchange: Exchange, feed: str) -> None:
    asked = subscription(exchange, exchange.orderbook_channels[0], some_symbols(exchange, 3))
    requests = exchange.resubscribe(asked, asked.symbols[1], feed, "n")
    assert [pair for request in requests for pair in request.feeds].count((asked.symbols[1], feed)) == 1
    assert asked.symbols[1] in requests[-1].frame


@each_exchange
def test_the_endpoint_stays_on_the_host_that_was_configured(exchange: Exchange) -> None:
    asked = subscription(exchange, exchange.orderbook_channels[0], some_symbols(exchange, 1))
    assert exchange.endpoint("ws://127.0.0.1:8080/base", asked).startswith("ws://127.0.0.1:8080/base")


@each_channel
def test_golden_frames_become_exactly_the_golden_events(exchange: Exchange, channel: str) -> None:
    decoder = exchange.decoder(subscription(exchange, channel))
    lines = frames(exchange.name, channel)
    assert [events(decoder.decode(line)) for line in lines] == golden(exchange.name, channel)


@each_channel
def test_the_same_frame_becomes_the_same_events_whatever_came_before(exchange: Exchange, channel: str) -> None:
    asked = subscription(exchange, channel)
    decoder, lines = exchange.decoder(asked), frames(exchange.name, channel)
    forward = [decoder.decode(line) for line in lines]
    assert [decoder.decode(line) for line in reversed(lines)] == forward[::-1]
    assert [exchange.decoder(asked).decode(line) for line in lines] == forward


@each_channel
def test_every_event_is_told_in_the_text_of_its_frame(exchange: Exchange, channel: str) -> None:
    asked = subscription(exchange, channel)
    decoder = exchange.decoder(asked)
    for line in frames(exchange.name, channel):
        assert checked_events(decoder, asked, line)


@each_channel
def test_a_frame_of_a_symbol_that_was_not_asked_for_is_rejected(exchange: Exchange, channel: str) -> None:
    decoder = exchange.decoder(subscription(exchange, channel, some_symbols(exchange, 3)))
    for line in frames(exchange.name, channel):
        with pytest.raises(FrameRejected):
            decoder.decode(line)


@each_channel
def test_a_frame_of_a_feed_that_was_not_asked_for_is_rejected(exchange: Exchange, channel: str) -> None:
    both = subscription(exchange, channel)
    other = (TRADE,) if channel in exchange.orderbook_channels else (ORDERBOOK,)
    decoder = exchange.decoder(Subscription(both.symbols, other, both.orderbook_channel, both.trade_channel))
    for line in frames(exchange.name, channel):
        with pytest.raises(FrameRejected):
            decoder.decode(line)


@each_channel
def test_a_truncated_frame_is_rejected_wherever_it_was_cut(exchange: Exchange, channel: str) -> None:
    decoder = exchange.decoder(subscription(exchange, channel))
    for line in frames(exchange.name, channel)[:2]:
        for length in range(len(line.rstrip())):
            with pytest.raises(FrameRejected):
                decoder.decode(line[:length])


@each_channel
def test_a_frame_with_something_behind_it_is_rejected(exchange: Exchange, channel: str) -> None:
    decoder = exchange.decoder(subscription(exchange, channel))
    for line in frames(exchange.name, channel):
        for tail in ("}", "{}", ",", "null", line):
            with pytest.raises(FrameRejected):
                decoder.decode(line + tail)


@each_exchange
@pytest.mark.parametrize(
    "frame",
    ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000, '{"data":' * 100_000 + "1" + "}" * 100_000],
    ids=["open lists", "open objects", "lists", "objects"],
)
def test_deep_nesting_is_rejected(exchange: Exchange, frame: str) -> None:
    with pytest.raises(FrameRejected):
        exchange.decoder(subscription(exchange, exchange.orderbook_channels[0])).decode(frame)


@each_channel
def test_deep_nesting_inside_a_frame_is_rejected_wherever_it_stands(exchange: Exchange, channel: str) -> None:
    decoder = exchange.decoder(subscription(exchange, channel))
    line = frames(exchange.name, channel)[0]
    for at, character in enumerate(line):
        if character in "[{":
            with pytest.raises(FrameRejected):
                decoder.decode(line[:at] + "[" * 100_000 + line[at:])


@each_exchange
@pytest.mark.parametrize(
    "frame", ["null", "true", "0", '""', "[]", "{}", "[[]]", "[{}]", '{"data":null}', '{"type":5}', "NaN"]
)
def test_json_of_another_shape_holds_no_event(exchange: Exchange, frame: str) -> None:
    with pytest.raises(FrameRejected):
        exchange.decoder(subscription(exchange, exchange.orderbook_channels[0])).decode(frame)


@each_exchange
@settings(deadline=None)
@given(frame=st.text() | st.text(st.characters(codec=None), max_size=20) | json_values.map(json.dumps))
def test_arbitrary_text_holds_no_event_and_breaks_nothing(exchange: Exchange, frame: str) -> None:
    asked = subscription(exchange, exchange.orderbook_channels[0])
    assert checked_events(exchange.decoder(asked), asked, frame) == []


@each_channel
@settings(deadline=None)
@given(draw=st.data())
def test_a_frame_with_characters_changed_decodes_or_is_rejected(
    exchange: Exchange, channel: str, draw: st.DataObject
) -> None:
    line = draw.draw(st.sampled_from(frames(exchange.name, channel)))
    at = draw.draw(st.integers(0, len(line) - 1))
    removed = draw.draw(st.integers(0, 5))
    inserted = draw.draw(
        st.text(max_size=3) | st.text(st.characters(codec=None), max_size=2) | st.sampled_from('{}[]",:0-e')
    )
    asked = subscription(exchange, channel)
    checked_events(exchange.decoder(asked), asked, line[:at] + inserted + line[at + removed :])


@each_channel
@settings(deadline=None)
@given(draw=st.data())
def test_a_frame_with_a_value_changed_decodes_or_is_rejected(
    exchange: Exchange, channel: str, draw: st.DataObject
) -> None:
    tree = json.loads(draw.draw(st.sampled_from(frames(exchange.name, channel))))
    container, key = draw.draw(st.sampled_from(list(places(tree))))
    if draw.draw(st.booleans()):
        container[key] = draw.draw(json_values)
    else:
        del container[key]
    asked = subscription(exchange, channel)
    checked_events(exchange.decoder(asked), asked, json.dumps(tree, separators=(",", ":")))


def places(tree: Any) -> Any:
    """(container, key) of every value inside `tree`."""
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from places(value)


@each_exchange
def test_control_frames_hold_no_event(exchange: Exchange) -> None:
    decoder = exchange.decoder(subscription(exchange, exchange.orderbook_channels[0]))
    for line in frames(exchange.name, "control"):
        assert decoder.decode(line)
        assert events(decoder.decode(line)) == []


@each_exchange
@settings(deadline=None)
@given(body=st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_an_answer_that_is_no_list_of_symbols_is_rejected(exchange: Exchange, body: bytes) -> None:
    try:
        listed = exchange.listed(body)
    except FrameRejected:
        return
    assert listed == frozenset()
