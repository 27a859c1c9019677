"""The last snapshot and what came after it, wherever it lies by now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.codec import BatchCodec
from app.model import ORDERBOOK, TRADE, Event, Gap, Loss, Market
from app.pipeline import periodic
from app.pipeline.since_snapshot import since_snapshot
from app.wiring import Wiring
from tests.support.batches import OPENED_US, batch, event
from tests.support.path import NEVER
from tests.support.rig import Rig

STREAM = "coinbase-0-orderbook.trade"
MARKET = Market("coinbase", "BTC-USD")


def book(number: int, *, whole: bool = False, symbol: str = "BTC-USD") -> Event:
    """A frame of the book: a snapshot, or a change of the level that bears its number."""
    told: dict[str, Any] = {"type": "l2update", "product_id": symbol, "changes": [["buy", f"{number}.0", "1"]]}
    if whole:
        told = {"type": "snapshot", "product_id": symbol, "bids": [[f"{number}.0", "1"]], "asks": [["9999.0", "1"]]}
    return event(number, f"{symbol}-{number}", symbol=symbol, feed=ORDERBOOK, data=json.dumps(told))


class World:
    """Batches of one connection, flushed where the test says so."""

    def __init__(self, rig: Rig) -> None:
        rig.write({"coinbase": ["BTC-USD", "ETH-USD"]})
        self.wiring: Wiring = rig.wiring()
        self._number = 0

    def flush(self, *events: Event, seal: bool = False, **more: Any) -> None:
        self._number += 1
        element = BatchCodec().encode(batch(self._number, events, stream=STREAM, **more))
        self.wiring.buffer.push(STREAM, element)
        assert periodic.flush(self.wiring, NEVER, deadline_s=None, seal=seal)["failed"] == {}

    def archive(self) -> None:
        assert periodic.archive(self.wiring, NEVER, final=True)["failed"] == {}

    def numbers(self, **more: Any) -> list[str]:
        settings = self.wiring.settings.storage
        found = since_snapshot(self.wiring.ledger, settings.segments_path, lambda: self.wiring.store, MARKET, **more)
        return [row.exchange_sequence_id.removeprefix("BTC-USD-") for row in found]


@pytest.fixture
def world(rig: Rig) -> World:
    return World(rig)


def test_it_begins_with_the_last_snapshot_and_leaves_out_other_markets_and_trades(world: World) -> None:
    world.flush(book(1, whole=True), book(2), event(1, symbol="BTC-USD", feed=TRADE))
    world.flush(book(1, whole=True, symbol="ETH-USD"), book(3, whole=True), book(4), book(2, symbol="ETH-USD"))
    world.flush(book(5))
    assert world.numbers() == ["3", "4", "5"]


def test_it_is_found_over_segments_and_in_objects_of_removed_ones(world: World) -> None:
    world.flush(book(1, whole=True), book(2), seal=True)
    world.flush(book(3), seal=True)
    assert world.numbers() == ["1", "2", "3"]
    world.archive()
    assert {entry.state for entry in world.wiring.ledger.segments()} == {"removed"}
    assert world.numbers() == ["1", "2", "3"]
    world.flush(book(4), book(5))
    assert world.numbers() == ["1", "2", "3", "4", "5"], "objects first, then the open segment"


def test_nothing_is_found_where_there_is_no_snapshot_or_too_far_back(world: World) -> None:
    assert world.numbers() == []
    world.flush(book(1), book(2))
    assert world.numbers() == []
    world.flush(book(3, whole=True), book(4), book(5), seal=True)
    assert world.numbers(most_rows=3) == ["3", "4", "5"]
    assert world.numbers(most_rows=2) == []
    world.archive()
    assert world.numbers(most_rows=2) == []


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("kind", ["gap", "loss"])
def test_a_book_is_not_carried_over_what_is_on_record_as_missing(world: World, kind: str, removed: bool) -> None:
    world.flush(book(1, whole=True), book(2))
    assert world.numbers() == ["1", "2"]
    at_us = OPENED_US + 3
    gap = Gap("BTC-USD", ORDERBOOK, 3, "?", "?", None, at_us - 1, at_us, "jump")
    loss = Loss("BTC-USD", ORDERBOOK, 3, 3, 1, at_us, at_us, "queue_full")
    world.flush(
        book(4 if kind == "loss" else 3), **({"gaps": [gap]} if kind == "gap" else {"losses": [loss]}), seal=True
    )
    if removed:
        world.archive()
    assert world.numbers() == []
    world.flush(book(5, whole=True), book(6))
    assert world.numbers() == ["5", "6"]
