"""What holds for every venue alike."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import app.venues
from app.venues.cli import VENUES
from app.venues.dialect import Close, Join, Leave, Send, Venue

TOPICS = {
    "binance": ("ethusdt@depth@100ms", "ethusdt@depth20@100ms", "ethusdt@trade"),
    "coinbase": ("level2_batch:ETH-USD", "matches:ETH-USD"),
    "upbit": ("orderbook:KRW-ETH:30:SIMPLE", "trade:KRW-ETH:30:SIMPLE"),
    "okx": ("books:ETH-USDT", "books5:ETH-USDT", "trades:ETH-USDT"),
    "bybit": ("orderbook.50.ETHUSDT", "orderbook.1.ETHUSDT", "publicTrade.ETHUSDT"),
}
LISTED = {name: venue.listing() for name, venue in VENUES.items()}
NOW_US = 1_790_000_000_123_456

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["subscribe", "unsubscribe", "ping"]) | json_values,
        "method": st.sampled_from(["SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS"]) | json_values,
        "type": st.sampled_from(["subscribe", "unsubscribe", "trade", "orderbook"]) | json_values,
        "id": json_values,
        "req_id": json_values,
        "args": json_values | st.lists(st.sampled_from(["publicTrade.ETHUSDT", "orderbook.50.ETHUSDT"])),
        "params": json_values | st.lists(st.sampled_from(TOPICS["binance"])),
        "channels": json_values | st.lists(st.sampled_from(["matches", "level2_batch"])),
        "product_ids": json_values | st.just(["ETH-USD"]),
        "codes": json_values | st.just(["KRW-ETH", "KRW:ETH", ".", "KRW-ETH.5"]),
        "ticket": json_values,
        "format": json_values | st.just("SIMPLE"),
    },
)
messages = st.text(max_size=40) | (requests | st.lists(requests, max_size=3) | json_values).map(json.dumps)


def made(name: str, seed: int = 7) -> Venue:
    return VENUES[name](LISTED[name], seed, 1_000)


@pytest.mark.parametrize("name", VENUES)
@given(sent=st.lists(messages, max_size=6))
@settings(max_examples=80, deadline=None)
def test_a_session_answers_whatever_a_client_says(name: str, sent: list[str]) -> None:
    venue = made(name)
    session = venue.session(1, {}, NOW_US)
    for text in sent:
        for action in session.received(text, NOW_US):
            match action:
                case Join(topic):
                    venue.topic(topic, NOW_US)
                case Send(frame):
                    assert frame.events == () and (frame.text == "pong" or json.loads(frame.text) is not None)
                case _:
                    assert isinstance(action, Leave | Close)


@pytest.mark.parametrize("name", VENUES)
def test_the_seed_makes_every_frame_and_the_time_does_not(name: str) -> None:
    def course(seed: int) -> list[tuple[str | None, ...]]:
        venue = made(name, seed)
        topics = [venue.topic(topic, NOW_US) for topic in TOPICS[name]]
        market = topics[0].market  # type: ignore[union-attr]
        for topic in topics:
            topic.begin(NOW_US)  # type: ignore[union-attr]
        return [
            tuple(frame.text for frame in topic.advance(step, NOW_US))  # type: ignore[union-attr]
            for _ in range(20)
            for step in venue.steps(market, NOW_US)
            for topic in topics
        ]

    assert course(7) == course(7) != course(8)


@pytest.mark.parametrize("name", VENUES)
def test_every_data_frame_can_be_read_back_as_the_events_it_was_sent_with(name: str) -> None:
    venue = made(name)
    for topic_name in TOPICS[name]:
        topic = venue.topic(topic_name, NOW_US)
        assert topic is not None and venue.topic(topic_name, NOW_US) is topic
        topic.begin(NOW_US)
        frames = topic.opening(NOW_US)
        for _ in range(10):
            for step in venue.steps(topic.market, NOW_US):
                frames += topic.advance(step, NOW_US)
        assert frames
        for frame in frames:
            assert venue.read(frame.text) == (venue.recorded_as(topic_name), frame)
            assert {(event.symbol, event.feed) for event in frame.events} == {(topic.symbol, topic.feed)}


@pytest.mark.parametrize("name", VENUES)
def test_a_topic_of_an_unlisted_market_does_not_exist(name: str) -> None:
    venue = VENUES[name]({}, 7, 1_000)
    assert [venue.topic(topic, NOW_US) for topic in TOPICS[name]] == [None] * len(TOPICS[name])


@pytest.mark.parametrize("name", VENUES)
def test_rest_knows_its_symbols_path_and_no_other(name: str) -> None:
    path, _, query = VENUES[name].symbols_path.partition("?")
    parts = dict([query.split("=")]) if query else {}
    answered = made(name).rest(path, parts, NOW_US)
    assert answered is not None and answered.status == 200 and json.loads(answered.body)
    assert made(name).rest("/no/such/path", {}, NOW_US) is None


def test_the_venues_share_no_word_with_the_decoders_they_test() -> None:
    imported = {
        node.module or ""
        for path in Path(app.venues.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    ours = {module for module in imported if module.startswith("app") and not module.startswith("app.venues")}
    assert ours == {"app.clock"}
