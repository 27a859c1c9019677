"""How complete hours are, over real segments, objects and findings, against what `collector certificate` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.model import Check, EpochEnd, Gap, Loss, Market, Range, Repair
from app.pipeline import periodic
from app.pipeline.certificate import certificates
from app.pipeline.hours import GAP, HOUR_US, PROVED, REPAIRED, UNKNOWABLE, hour_of
from tests.support.batches import EPOCH, batch
from tests.support.four_hours import BOOK, BTC, ETH, KRW, World
from tests.support.path import NEVER
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig


@pytest.fixture
def world(rig: Rig) -> World:
    """One that the test may change."""
    world = World(rig)
    world.record()
    return world


@pytest.fixture(scope="module")
def shared(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One that every test leaves as it is."""
    world = World(Rig(tmp_path_factory.mktemp("shared"), redis_server.url))
    world.record()
    return world


def test_each_hour_has_the_state_of_what_it_holds(shared: World) -> None:
    assert shared.said(BTC, 0) == (GAP, 4 / 7, 4)
    assert shared.said(ETH, 0) == (PROVED, 1.0, 3)
    assert shared.said(BOOK, 0) == (UNKNOWABLE, None, 2)
    assert shared.said(KRW, 0) == (UNKNOWABLE, None, 2)
    assert shared.said(ETH, 1) == (GAP, 4 / 6, 4)
    assert [shared.said(feed, 2) for feed in (BTC, ETH, BOOK, KRW)] == [None] * 4
    running = shared.grid().cells[BTC][shared.hours[3]]
    assert (running.state, running.value, running.rows, running.provisional) == (PROVED, 1.0, 2, True)
    archived = shared.grid().cells[BTC][shared.hours[0]]
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
            assert world.fresh().opened(feed, hour_us) == (now, []), "also where the grid was never read"
            compared += 1
    assert compared == 5


@pytest.mark.parametrize("at_once", [1, 4])
def test_what_there_was_no_time_to_read_is_left_to_the_next_call(shared: World, at_once: int) -> None:
    hourly = shared.fresh(at_once)
    grid = shared.grid(hourly, deadline_s=-1)
    assert grid.unread == 5
    assert [cell.provisional for its in grid.cells.values() for cell in its.values()] == [True]
    whole = shared.grid(hourly)
    assert (whole.unread, whole.cells) == (0, shared.grid().cells)


def test_a_manifest_that_cannot_be_read_is_told_in_its_cell(shared: World) -> None:
    (path,) = (Path(shared.wiring.settings.storage.local_path) / "upbit").rglob("_*.json")
    whole = path.read_bytes()
    path.write_text("{}")
    hourly = shared.fresh()
    cell = shared.grid(hourly).cells[KRW][shared.hours[0]]
    assert (cell.state, cell.value) == (UNKNOWABLE, None)
    assert cell.reasons[0].startswith("its manifest cannot be read: not a manifest")
    path.write_bytes(whole)
    cell = shared.grid(hourly).cells[KRW][shared.hours[0]]
    assert cell.reasons == ("the ids of these trades do not tell what is missing",), "it is tried again"


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
