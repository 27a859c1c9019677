"""Segments whose bytes are damaged: set aside, salvaged, the missing declared to the number; recording goes on."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app import metrics
from app.model import TRADE
from app.pipeline import periodic
from app.store.ledger import REMOVED
from app.store.reckoned import CAUSE
from app.store.segment import PAGE_SIZE
from app.wiring import Wiring
from tests.chaos.content import HOUR_US, T0_US, Content, Held, audited, held
from tests.support.path import NEVER, flush_at
from tests.support.rig import Rig

STREAM = "okx-0-orderbook.trade"
BATCHES, BATCH = 20, 25


def _recorded(rig: Rig) -> tuple[Wiring, Content]:
    """A segment of some hundred pages, still open; two markets whose rows stand on the same pages, one with duplicates."""
    rig.write({"okx": ["BTC-USDT"]})
    wiring, content = rig.wiring(), Content()
    c = content.connection(STREAM, 7, T0_US)
    for number in range(BATCHES):
        units = [
            c.event("BTC-USDT", TRADE, str(BATCH * number + n), f'"{BATCH * number + n:900d}"') for n in range(BATCH)
        ]
        units += [c.event("ETH-USDT", TRADE, str((BATCH * number + n) % 400), "1" * 900) for n in range(BATCH)]
        c.push(*units)
    content.push(wiring.buffer)
    assert flush_at(wiring, T0_US).failed == {}
    return wiring, content


def _segment(wiring: Wiring) -> Path:
    return wiring.settings.storage.segments_path / wiring.ledger.segments()[0].path


def _declared() -> float:
    """Declarations of losses by a damaged segment that this process has counted."""
    return sum(
        value
        for (name, labels), value in metrics.counted().items()
        if name == "collector_losses_declared_total" and ("cause", CAUSE) in labels
    )


def _settle(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _spoil(path: Path, pages: list[int]) -> None:
    noise = random.Random(1)
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE_SIZE)
            file.write(noise.randbytes(PAGE_SIZE))


def _root_page(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        return int(page)


def _balanced(found: Held, content: Content) -> int:
    """Every row that is there was sent, every number is in a range or declared lost, and their rows agree; how many lost."""
    assert not found.rows - content.expected.rows
    lost: dict[Any, set[int]] = {}
    for (epoch, symbol, feed, first, last, count, cause), times in found.losses.items():
        assert (times, cause, count) == (1, CAUSE, last - first + 1)
        lost.setdefault((epoch, symbol, feed), set()).update(range(first, last + 1))
    for key, fate in content.expected.fates.items():
        kept = found.fates[key].numbers if key in found.fates else set()
        assert not kept & lost.get(key, set())
        assert kept | lost.get(key, set()) == fate.numbers, key
    stored = sum(fate.stored for fate in found.fates.values())
    assert stored == sum(found.rows.values())
    missing = sum(content.expected.rows.values()) - stored
    assert missing == sum(map(len, lost.values()))
    return missing


def _goes_on(rig: Rig, content: Content) -> None:
    """More is recorded, archived and removed, and what is declared stays so."""
    wiring = rig.wiring()
    d = content.connection(STREAM, 8, T0_US + HOUR_US)
    split = len(content.elements)
    d.push(d.trade("BTC-USDT", 5_000_000), d.trade("ETH-USDT", 5_000_000), end="stop")
    content.push(wiring.buffer, content.elements[split:])
    assert periodic.flush(wiring, NEVER, seal=True)["failed"] == {}
    assert periodic.archive(wiring, NEVER, final=True)["failed"] == {}
    assert {entry.state for entry in wiring.ledger.segments()} == {REMOVED}
    assert audited(rig) == []


@pytest.mark.row("D3")
@pytest.mark.parametrize(
    ("what", "state"), [("rows", "open"), ("truncated", "open"), ("schema", "sealed"), ("inner", "sealed")]
)
def test_of_a_damaged_segment_every_row_that_can_be_read_is_kept_and_the_others_are_declared_to_the_number(
    rig: Rig, what: str, state: str, record_property: Any
) -> None:
    wiring, content = _recorded(rig)
    path = _segment(wiring)
    if state == "sealed":
        assert len(flush_at(wiring, T0_US + HOUR_US).sealed) == 1
    else:
        _settle(path)
    pages = path.stat().st_size // PAGE_SIZE
    if what == "truncated":
        with path.open("r+b") as file:
            file.truncate(pages // 2 * PAGE_SIZE)
    else:
        table = _root_page(path, "trades")
        _spoil(path, {"rows": [pages // 2, pages // 2 + 1, pages - 3], "inner": [table], "schema": [1]}[what])
    damaged = path.read_bytes()

    begun, before = rig.wiring(), _declared()  # a process that has just started
    assert periodic.flush(begun, NEVER)["failed"] == {}
    missing = _balanced(held(rig), content)
    assert audited(rig) == []
    assert _declared() - before == len(held(rig).losses), "the alert sees each declaration"
    record_property("rows_lost", f"{missing} of {content.expected.rows.total()}")
    assert {"rows": 0 < missing < 100, "schema": missing == 0}.get(what, missing > 100)
    (kept,) = path.parent.glob(f"{path.name}.corrupt-*[0-9]")
    assert kept.read_bytes() == damaged
    assert begun.board.troubles()["segments"]["level"] == "degraded"
    _goes_on(rig, content)
    assert _balanced(held(rig), content) == missing
    assert kept.exists()


@pytest.mark.row("D3")
def test_where_the_ranges_themselves_are_gone_rows_get_numbers_again_and_what_follows_shows_what_was_lost(
    rig: Rig,
) -> None:
    wiring, content = _recorded(rig)
    path = _segment(wiring)
    _settle(path)
    _spoil(path, [_root_page(path, "ranges"), path.stat().st_size // PAGE_SIZE // 2])
    assert periodic.flush(rig.wiring(), NEVER)["failed"] == {}
    found = held(rig)
    unknown = {loss for loss in found.losses if loss[5] is None}
    assert {loss[6] for loss in unknown} == {CAUSE}
    assert {loss[:3] for loss in unknown} == content.expected.fates.keys()
    assert sum(fate.stored for fate in found.fates.values()) == found.rows.total() > 500
    _goes_on(rig, content)  # its rows agree with its ranges: it is archived and removed


@pytest.mark.row("D3")
def test_a_segment_whose_objects_are_proved_is_whole_again_however_damaged_it_is(rig: Rig) -> None:
    wiring, content = _recorded(rig)
    assert len(flush_at(wiring, T0_US + HOUR_US).sealed) == 1
    assert periodic.archive(wiring, NEVER)["objects"] == 2
    path = _segment(wiring)
    _spoil(path, [_root_page(path, "trades"), _root_page(path, "ranges")])
    assert periodic.flush(rig.wiring(), NEVER)["failed"] == {}
    assert _balanced(held(rig), content) == 0
    _goes_on(rig, content)
    assert _balanced(held(rig), content) == 0


@pytest.mark.row("D3")
def test_a_text_that_is_none_any_more_is_found_by_the_archive_and_costs_its_row_alone(rig: Rig) -> None:
    wiring, content = _recorded(rig)
    assert len(flush_at(wiring, T0_US + HOUR_US).sealed) == 1
    path = _segment(wiring)
    held_bytes = path.read_bytes()
    at = held_bytes.index(f"{77:900d}".encode()) + 100
    path.write_bytes(held_bytes[:at] + b"\xff" + held_bytes[at + 1 :])
    wiring = rig.wiring()
    wiring.segments_in_doubt = False
    report = periodic.archive(wiring, NEVER)
    assert (report["failed"], wiring.ledger.totals()[1]) == ({}, 2)
    assert _balanced(held(rig), content) == 1


def test_a_salvage_that_is_stopped_before_its_end_is_finished_by_the_next_process(rig: Rig) -> None:
    wiring, content = _recorded(rig)
    path = _segment(wiring)
    _settle(path)
    _spoil(path, [path.stat().st_size // PAGE_SIZE // 2])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("app.store.salvage.finish", _killed)
        periodic.flush(rig.wiring(), NEVER)
    assert path.with_name(f"{path.name}.salvaged").exists()
    assert periodic.flush(rig.wiring(), NEVER)["failed"] == {}
    assert 0 < _balanced(held(rig), content) < 100
    assert not path.with_name(f"{path.name}.salvaged").exists()


def _killed(*_: Any) -> bool:
    raise RuntimeError("killed")
