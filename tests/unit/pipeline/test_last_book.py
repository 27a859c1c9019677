"""The book after the last stored row, wherever its snapshot lies by now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.codec import BatchCodec
from app.model import ORDERBOOK, TRADE, Event, Gap, Loss, Market
from app.pipeline import periodic
from app.pipeline.last_book import last_book
from app.store.ledger import Ledger
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
        rig.write({"coinbase": ["BTC-USD", "ETH-USD"], "okx": ["BTC-USDT"]})
        self.wiring: Wiring = rig.wiring()
        self._number = 0

    def flush(self, *events: Event, seal: bool = False, stream: str = STREAM, **more: Any) -> None:
        self._number += 1
        element = BatchCodec().encode(batch(self._number, events, stream=stream, **more))
        self.wiring.buffer.push(stream, element)
        assert periodic.flush(self.wiring, NEVER, deadline_s=None, seal=seal)["failed"] == {}

    def archive(self) -> None:
        assert periodic.archive(self.wiring, NEVER, final=True)["failed"] == {}

    def numbers(self, market: Market = MARKET, **more: Any) -> list[str]:
        """Numbers of the rows that the book is made of, [] where there is none."""
        settings = self.wiring.settings.storage
        found = last_book(self.wiring.ledger, settings.segments_path, lambda: self.wiring.store, market, **more)
        return [row.exchange_sequence_id.rpartition("-")[2] for row in found[1]] if found else []


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


def test_a_snapshot_many_objects_back_is_found_by_reading_a_few_entries_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 6):
        world.flush(book(number, whole=number == 1), book(number, symbol="ETH-USD"), seal=True)
    world.archive()
    asked: list[int | None] = []
    objects = Ledger.objects
    monkeypatch.setattr(Ledger, "objects", lambda self, segment=None: asked.append(segment) or objects(self, segment))
    for entries in (1, 2, 16):
        monkeypatch.setattr("app.pipeline.last_book.PAGE_OBJECTS", entries)
        assert world.numbers() == ["1", "2", "3", "4", "5"]
    assert None not in asked, "the whole ledger grows with every hour of every market"


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


def okx(number: int, *, whole: bool = False, own: int) -> Event:
    """A frame of OKX: book number `number`, snapshot or change; `own`: its number within its connection."""
    told = {"asks": [["9999", "1", "0", "1"]], "bids": [[str(number), "1", "0", "1"]], "ts": "1", "checksum": 1}
    told |= {"seqId": number, "prevSeqId": -1 if whole else number - 1}
    frame = {
        "arg": {"channel": "books", "instId": "BTC-USDT"},
        "action": "snapshot" if whole else "update",
        "data": [told],
    }
    return event(own, f"b-{'s' if whole else ''}{number}", symbol="BTC-USDT", feed=ORDERBOOK, data=json.dumps(frame))


def test_where_connections_overlapped_the_series_before_the_last_snapshot_is_read(world: World) -> None:
    one, other = (
        {"stream": "okx-0-orderbook.trade", "epoch": "a1" * 16},
        {"stream": "okx-0-orderbook.trade", "epoch": "b2" * 16},
    )
    world.flush(okx(101, whole=True, own=1), *(okx(100 + n, own=n) for n in range(2, 7)), **one)
    # The new connection is behind: what follows its snapshot was stored before it, and goes on where the old one is.
    world.flush(okx(104, whole=True, own=1), **other)
    world.flush(okx(107, own=7), okx(108, own=8), **one)
    found = last_book(
        world.wiring.ledger,
        world.wiring.settings.storage.segments_path,
        lambda: world.wiring.store,
        Market("okx", "BTC-USDT"),
    )
    assert found is not None and found[0].book is not None
    assert [int(price) for price, _ in found[0].book.bids.top(9)] == [108, 107, 106, 105, 104, 103, 102, 101]
    assert world.numbers(Market("okx", "BTC-USDT"))[0] == "s101"
