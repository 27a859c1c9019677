"""How complete hours are, over real segments, objects and findings, against what `collector certificate` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from app.clock import monotonic_s, wall_us
from app.codec import BatchCodec
from app.model import Check, EpochEnd, Gap, Loss, Market, Quarantined, Range, Repair
from app.pipeline import periodic
from app.pipeline.certificate import certificates
from app.pipeline.hourly import Grid, Hourly
from app.pipeline.hours import GAP, HOUR_US, PROVED, REPAIRED, UNKNOWABLE, hour_of
from tests.support.batches import EPOCH, batch, event
from tests.support.path import NEVER, flush_at
from tests.support.rig import Rig

BTC, ETH, BOOK = ("binance", "btcusdt", "trade"), ("binance", "ethusdt", "trade"), ("binance", "btcusdt", "orderbook")
KRW = ("upbit", "KRW-BTC", "trade")


class CountingStore:
    """The local store; every key that is opened is on record."""

    def __init__(self, store: Any) -> None:
        self._store, self.opened = store, cast(list[str], [])
        self.name = store.name

    def open(self, key: str) -> BinaryIO:
        self.opened.append(key)
        return cast(BinaryIO, self._store.open(key))


class World:
    """Four hours of three markets, put in at clocks of the test's choosing: the last of them is the one that goes on."""

    def __init__(self, rig: Rig) -> None:
        rig.write({"binance": ["btcusdt", "ethusdt"], "upbit": ["KRW-BTC"]})
        self.rig, self.wiring = rig, rig.wiring()
        self.now_us = wall_us()
        self.hours = [hour_of(self.now_us) + n * HOUR_US for n in (-3, -2, -1, 0)]
        self.store = CountingStore(self.wiring.store)
        self.hourly = self.fresh()
        self._findings = 0

    def fresh(self) -> Hourly:
        return Hourly(
            self.wiring.ledger, self.wiring.settings.storage.segments_path, cast(Any, self.store), wall_us=wall_us,
            monotonic_s=monotonic_s,
        )  # fmt: skip

    def put(self, made: Any, at_us: int) -> None:
        self.wiring.buffer.push(made.stream, BatchCodec().encode(made))
        assert flush_at(self.wiring, at_us).failed == {}

    def finding(self, *, epoch: str, events: Any = (), **records: Any) -> Any:
        self._findings += 1
        return batch(self._findings, events, epoch=epoch, stream="binance-findings", kind="finding", **records)

    def trades(self, hour: int, *ids: int, symbol: str = "btcusdt", first: int = 1) -> list[Any]:
        """Events that bear numbers from `first`, each a second after the one before."""
        return [
            event(n, str(identity), symbol=symbol, received_us=self.at(hour, n))
            for n, identity in enumerate(ids, first)
        ]

    def at(self, hour: int, seconds: int) -> int:
        return self.hours[hour] + seconds * 1_000_000

    def archive(self, *, final: bool = False) -> None:
        assert periodic.archive(self.wiring, NEVER, final=final)["failed"] == {}

    def grid(self, hourly: Hourly | None = None, *, deadline_s: float = 60) -> Grid:
        return (hourly or self.hourly).grid(self.hours[0], self.now_us + 1, deadline_s=deadline_s)

    def said(self, feed: tuple[str, str, str], hour: int) -> tuple[str, float | None, int] | None:
        cell = self.grid().cells.get(feed, {}).get(self.hours[hour])
        return cell and (cell.state, cell.value, cell.rows)


@pytest.fixture
def world(rig: Rig) -> World:
    """Hour 0: trades with a gap, trades in order, a book, trades without ids that count. Hour 1: a counted loss. Hour 2:
    nothing. Hour 3 goes on."""
    world = World(rig)
    gap = Gap("btcusdt", "trade", 3, "3", "5", 3, world.at(0, 2), world.at(0, 3), "missing_ids")
    rows = [event(n, f"d-{n}", feed="orderbook", received_us=world.at(0, n)) for n in (1, 2)]
    units = [*world.trades(0, 1, 2, 6, 7), *world.trades(0, 1, 2, 3, symbol="ethusdt"), *rows]
    world.put(batch(1, units, gaps=[gap]), world.at(0, 5))
    korean = [event(n, f"170-{n}", symbol="KRW-BTC", received_us=world.at(0, n)) for n in (1, 2)]
    world.put(batch(1, korean, epoch="0b" * 16, stream="upbit-0-trade"), world.at(0, 6))
    lost = Loss("ethusdt", "trade", 6, 7, 2, world.at(1, 2), world.at(1, 3), "queue_full")
    kept = [*world.trades(1, 4, 5, symbol="ethusdt", first=4), *world.trades(1, 8, 9, symbol="ethusdt", first=8)]
    bad = Quarantined("?", "?", 1, world.at(1, 4), "not_json", b"\xff<b>\x1b[0m" + b"x" * 300)
    world.put(batch(2, [*kept, bad], losses=[lost]), world.at(1, 9))
    world.put(batch(3, world.trades(3, 8, 9, first=5)), world.at(3, 1))
    world.archive()
    return world


def test_each_hour_has_the_state_of_what_it_holds(world: World) -> None:
    assert world.said(BTC, 0) == (GAP, 4 / 7, 4)
    assert world.said(ETH, 0) == (PROVED, 1.0, 3)
    assert world.said(BOOK, 0) == (UNKNOWABLE, None, 2)
    assert world.said(KRW, 0) == (UNKNOWABLE, None, 2)
    assert world.said(ETH, 1) == (GAP, 4 / 6, 4)
    assert [world.said(feed, 2) for feed in (BTC, ETH, BOOK, KRW)] == [None] * 4
    running = world.grid().cells[BTC][world.hours[3]]
    assert (running.state, running.value, running.rows, running.provisional) == (PROVED, 1.0, 2, True)
    archived = world.grid().cells[BTC][world.hours[0]]
    assert (archived.gaps, archived.open_gaps, archived.provisional) == (1, 1, False)
    assert archived.reasons == ("ids 3 to 5 are missing (missing_ids)",)


def test_what_is_found_out_later_changes_the_hour_it_is_about_and_nothing_else(world: World) -> None:
    before = world.grid().cells
    found = Repair("btcusdt", "trade", EPOCH, 3, world.at(3, 2), "repaired", 3)
    world.put(world.finding(epoch="1d" * 16, repairs=(found,)), world.at(3, 3))
    proof = Check("btcusdt", "orderbook", "continuity", world.at(0, 1), world.at(0, 2), "proved", world.at(3, 3))
    world.put(world.finding(epoch="1d" * 16, checks=(proof,)), world.at(3, 4))
    world.store.opened.clear()
    assert world.said(BTC, 0) == (REPAIRED, 1.0, 4)
    assert world.said(BOOK, 0) == (PROVED, 1.0, 2)
    assert sorted(key.split("/")[2] for key in world.store.opened) == ["orderbook", "trade"], "two manifests, once each"
    after = world.grid().cells
    assert {feed: after[feed] for feed in (ETH, KRW)} == {feed: before[feed] for feed in (ETH, KRW)}


def test_a_second_look_reads_no_manifest_and_removal_changes_no_verdict(world: World) -> None:
    first = world.grid()
    assert len(world.store.opened) == 5
    assert world.grid() == first
    assert len(world.store.opened) == 5
    beyond = Loss("ethusdt", "trade", 4, 4, None, world.at(0, 4), world.at(0, 5), "process_died")
    inside = Loss("btcusdt", "trade", 5, 5, None, world.at(0, 4), world.at(0, 5), "process_died")
    world.put(world.finding(epoch=EPOCH, losses=(beyond, inside)), world.at(3, 5))
    kept = world.grid().cells
    assert kept[ETH][world.hours[0]].state == PROVED, "it touches no row of the hour"
    assert kept[BTC][world.hours[0]].value is None, "and here it does: nobody knows how many"
    periodic.flush(world.wiring, NEVER, seal=True)
    world.archive(final=True)
    assert world.wiring.ledger.segments("open", "sealed") == []
    gone = world.grid().cells
    assert {feed: {h: c.value for h, c in its.items()} for feed, its in gone.items()} == {
        feed: {h: c.value for h, c in its.items()} for feed, its in kept.items()
    }
    assert gone == world.grid(world.fresh()).cells, "what is remembered is what is read anew"


def test_every_cell_says_what_the_certificate_of_the_hour_says(world: World) -> None:
    found = Repair("btcusdt", "trade", EPOCH, 3, world.at(3, 2), "partly", 2)
    seam = Check("btcusdt", "trade", "seam", world.at(0, 1), world.at(0, 2), "unknowable", world.at(3, 2), f"{EPOCH} x")
    world.put(world.finding(epoch="1d" * 16, repairs=(found,), checks=(seam,)), world.at(3, 3))
    wiring, compared = world.wiring, 0
    for feed, its in world.grid().cells.items():
        for hour_us, cell in its.items():
            if cell.provisional:
                continue
            root = wiring.settings.storage.segments_path
            now = [
                one.now
                for one in certificates(
                    wiring.store, wiring.ledger, root, Market(*feed[:2]), hour_us, hour_us + HOUR_US
                )
                if one.now.data_type == feed[2] and hour_of(one.now.opened_us) == hour_us
            ]
            assert (cell.value, cell.rows) == (now[0].completeness, now[0].rows)
            archived, running = world.hourly.opened(feed, hour_us)
            assert (archived, running) == (now, [])
            compared += 1
    assert compared == 5


def test_what_there_was_no_time_to_read_is_left_to_the_next_call(world: World) -> None:
    grid = world.grid(deadline_s=-1)
    assert grid.unread == 5
    assert [cell.provisional for its in grid.cells.values() for cell in its.values()] == [True]
    assert world.grid().unread == 0


def test_a_manifest_that_cannot_be_read_is_told_in_its_cell(world: World) -> None:
    (path,) = (Path(world.wiring.settings.storage.local_path) / "upbit").rglob("_*.json")
    path.write_text("{}")
    cell = world.grid().cells[KRW][world.hours[0]]
    assert (cell.state, cell.value) == (UNKNOWABLE, None)
    assert cell.reasons[0].startswith("its manifest cannot be read: not a manifest")


def test_the_running_hour_shows_its_gap_at_once(world: World) -> None:
    gap = Gap("btcusdt", "trade", 7, "10", "12", 3, world.at(3, 6), world.at(3, 7), "missing_ids")
    world.put(batch(4, world.trades(3, 13, first=7), gaps=[gap]), world.at(3, 8))
    assert world.said(BTC, 3) == (GAP, 3 / 6, 3)
    _, (running,) = world.hourly.opened(BTC, world.hours[3])
    assert [(one.from_id, one.to_id, one.repair) for one in running.gaps] == [("10", "12", None)]
    ended = EpochEnd(world.at(3, 9), "stopped", (Range("btcusdt", "trade", 1, 7),))
    world.put(batch(5, [], end=ended), world.at(3, 9))
    _, (running,) = world.hourly.opened(BTC, world.hours[3])
    assert [(one.epoch, one.reason) for one in running.epochs] == [(EPOCH, "stopped")]
