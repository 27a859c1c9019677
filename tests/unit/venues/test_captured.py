"""Generated frames have the keys and JSON types of captured ones, in the captured order of keys."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.venues.cli import VENUES
from app.venues.dialect import Send
from app.venues.replay import files, load

FRAMES = Path(os.environ.get("COLLECTOR_FRAMES", Path(__file__).parents[4] / "shared" / "frames"))
NOW_US = 1_790_000_000_123_456
pytestmark = pytest.mark.skipif(not FRAMES.is_dir(), reason=f"no captured frames in {FRAMES}")

#: (venue, file, what a captured frame of the kind contains, our topic, keys we have beyond the old capture)
KINDS = [
    ("binance", "spot_testnet_2026_session", '"e":"trade"', "ethusdt@trade", ()),
    ("binance", "spot_testnet_2026_session", "depthUpdate", "ethusdt@depth@100ms", ()),
    ("binance", "spot_depth_diff_combined", "depthUpdate", "ethusdt@depth@100ms", ()),
    ("binance", "spot_partial_depth20_combined", "lastUpdateId", "ethusdt@depth20", ()),
    ("coinbase", "exchange_2026_slice", '"match"', "matches:ETH-USD", ()),
    ("coinbase", "exchange_matches", '"last_match"', "matches:ETH-USD", ()),
    ("coinbase", "exchange_2026_slice", '"l2update"', "level2_batch:ETH-USD", ()),
    ("coinbase", "exchange_level2", '"snapshot"', "level2_batch:ETH-USD", ()),
    ("upbit", "orderbook_simple", '"SNAPSHOT"', "orderbook:KRW-ETH:15:SIMPLE", ("lv",)),
    ("upbit", "orderbook_simple", '"REALTIME"', "orderbook:KRW-ETH:15:SIMPLE", ("lv",)),
    ("upbit", "trade_simple", '"REALTIME"', "trade:KRW-ETH:30:SIMPLE", ("bap", "bas", "bbp", "bbs")),
    ("okx", "public_2026_swap_slice", '"update"', "books:ETH-USDT", ()),
    ("okx", "public_2025_spot_frames", '"snapshot"', "books:ETH-USDT", ()),
    ("okx", "public_2026_swap_slice", '"trades"', "trades:ETH-USDT", ()),
    ("okx", "public_2026_swap_slice", '"bbo-tbt"', "bbo-tbt:ETH-USDT", ()),
    ("okx", "books5_2022", '"books5"', "books5:ETH-USDT", ("seqId",)),
    ("bybit", "spot_testnet_2026_session", 'orderbook.50.BTCUSDT","ts":1789299657452', "orderbook.50.ETHUSDT", ()),
    ("bybit", "spot_testnet_2026_session", '"delta"', "orderbook.50.ETHUSDT", ()),
    ("bybit", "spot_testnet_2026_session", "orderbook.1.", "orderbook.1.ETHUSDT", ()),
    ("bybit", "spot_orderbook200", '"snapshot"', "orderbook.200.ETHUSDT", ()),
    ("bybit", "spot_testnet_2026_session", "publicTrade", "publicTrade.ETHUSDT", ()),
]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, JSON type) of everything inside, in order; all elements of an array share a path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        yield path, "array"
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def shape(texts: list[str], without: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Every (path, type) of these frames, each once, in order."""
    seen = dict.fromkeys(leaf for text in texts for leaf in leaves(json.loads(text)))
    return [leaf for leaf in seen if leaf[0].rpartition(".")[2] not in without]


def captured(venue: str, file: str, kind: str) -> list[str]:
    return [line for line in (FRAMES / venue / f"{file}.jsonl").read_text().splitlines() if kind in line]


def generated(name: str, topic_name: str) -> list[str]:
    venue = VENUES[name](VENUES[name].listing(), 7, 1_000)
    topic = venue.topic(topic_name, NOW_US)
    assert topic is not None
    topic.begin(NOW_US)
    frames = topic.opening(NOW_US)
    for _ in range(60):
        for step in venue.steps(topic.market, NOW_US):
            frames += topic.advance(step, NOW_US)
    return [frame.text for frame in frames]


@pytest.mark.parametrize(("venue", "file", "kind", "topic", "newer"), KINDS, ids=lambda value: str(value)[:40])
def test_a_generated_frame_has_the_shape_of_a_captured_one(
    venue: str, file: str, kind: str, topic: str, newer: tuple[str, ...]
) -> None:
    theirs = captured(venue, file, kind)
    marks = [f'"{word}"' for word in ("snapshot", "update", "l2update", "delta", "last_match", "SNAPSHOT", "REALTIME")]
    mark = next((mark for mark in marks if all(mark in frame for frame in theirs)), "")
    ours = [frame for frame in generated(venue, topic) if mark in frame]
    ordered = shape(theirs) == shape(ours, newer)
    assert ordered or sorted(shape(theirs)) == sorted(shape(ours, newer))
    # Arrays that are empty in the first frame put their elements' paths late: then only the keys' order is compared.
    assert ordered or [*json.loads(theirs[0])] == [*json.loads(ours[0])]


def test_answers_have_the_shape_of_captured_ones() -> None:
    def said(venue: str, text: str) -> str:
        action = VENUES[venue](VENUES[venue].listing(), 7, 1_000).session(1, {}, NOW_US).received(text, NOW_US)[0]
        assert isinstance(action, Send)
        return action.frame.text

    okx = captured("okx", "control", '"event":"subscribe"')
    arg = '{"channel":"books","instId":"BTC-USDT"}'
    assert shape([said("okx", f'{{"id":"1","op":"subscribe","args":[{arg}]}}')]) == shape(okx)
    refused = captured("okx", "control", '"60018"')
    unknown = '{"channel":"books","instId":"FOO-BAR"}'
    assert shape([said("okx", f'{{"op":"subscribe","args":[{unknown}]}}')]) == shape(refused)
    session = captured("bybit", "spot_testnet_2026_session", '"op":')
    asked = [
        '{"req_id":"s","op":"subscribe","args":["publicTrade.BTCUSDT"]}',
        '{"req_id":"p","op":"ping"}',
        '{"req_id":"s","op":"subscribe","args":["orderbook.50.NOSUCHSYM"]}',
    ]
    assert [shape([said("bybit", text)]) for text in asked] == [shape([text]) for text in session]
    coinbase = captured("coinbase", "exchange_control", "is not a valid product")
    request = '{"type":"subscribe","channels":["matches"],"product_ids":[]}'
    assert said("coinbase", request) == coinbase[0]


@pytest.mark.parametrize("name", VENUES)
def test_captured_frames_load_for_replay(name: str) -> None:
    recording = load(VENUES[name], files(FRAMES, name))
    assert recording.frames and all(frame.events for _, frame in recording.frames)
    for _, frame in recording.frames:
        assert all(event.data in frame.text for event in frame.events)
    expected = {
        "binance": "nknusdt", "coinbase": "BAND-GBP", "upbit": "KRW-LAMB", "okx": "BTC-USDT-SWAP", "bybit": "BTCUSDT",
    }  # fmt: skip
    assert expected[name] in recording.symbols
