"""The disk fills up, is read-only, or has a bound: nothing is damaged, what is wrong is named, and all goes on by itself.

On a real file system of the test's own that is really full; skipped where none can be mounted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreError
from app.pipeline import periodic, room
from app.pipeline.supervise import collect
from app.store.ledger import REMOVED
from app.wiring import Wiring
from tests.chaos.content import T0_US, Content, first_hour, held, second_hour
from tests.support.accounted import accounted
from tests.support.crash import CeleryWorker
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, flush_at, until
from tests.support.rig import Rig
from tests.support.small_disk import SmallDisk, small_disk

DISK_BYTES = 24 * 1024 * 1024
Record = Callable[[str, object], None]


@pytest.fixture
def disk(rig: Rig) -> Iterator[SmallDisk]:
    """What `rig` keeps its data on."""
    with small_disk(rig.directory / "data", DISK_BYTES) as made:
        yield made


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without watermarks, so that writers meet the last page."""
    monkeypatch.setattr(room, "WATERMARKS", {})


def _status(rig: Rig) -> tuple[int, dict[str, Any]]:
    answer = rig.collector("status", "--json")
    return answer.returncode, json.loads(answer.stdout)["troubles"]


def _recorded(rig: Rig) -> Content:
    """An hour sealed, half an hour in the open segment, and more waiting in Redis."""
    rig.write({"okx": ["BTC-USDT"]})
    content = Content()
    first_hour(content)
    wiring = rig.wiring()
    content.push(wiring.buffer)
    flush_at(wiring, T0_US)
    split = len(content.elements)
    second_hour(content)
    content.push(wiring.buffer, content.elements[split:-2])
    assert periodic.flush(wiring, NEVER)["failed"] == {}
    content.push(wiring.buffer, content.elements[-2:])
    large = content.connection("okx-0-orderbook.trade", 77, T0_US)
    split = len(content.elements)
    for number in range(40):
        large.push(large.event("BTC-USDT", "orderbook", str(number), f'"{number:20000d}"'))
    content.push(wiring.buffer, content.elements[split:])
    return content


def _goes_on(rig: Rig, content: Content) -> None:
    """Without anybody's help: all is stored and archived, and no notice is left."""
    wiring = rig.wiring()
    assert periodic.flush(wiring, NEVER, seal=True)["failed"] == {}
    assert wiring.buffer.depths() == []
    assert held(rig).facts() == content.expected
    assert periodic.archive(wiring, NEVER, final=True)["failed"] == {}
    assert held(rig).facts() == content.expected
    assert {entry.state for entry in wiring.ledger.segments()} == {REMOVED}
    assert wiring.board.troubles() == {}
    assert [path for path in (rig.directory / "data").rglob("*.tmp")] == []


@pytest.mark.row("D2")
def test_on_a_disk_that_is_full_to_the_last_page_no_station_fails_or_damages_anything_and_all_goes_on_with_room(
    rig: Rig, disk: SmallDisk, unwatched: None
) -> None:
    content = _recorded(rig)
    waiting = rig.wiring().buffer.depths()
    disk.fill()
    for _ in range(3):
        wiring = rig.wiring()  # as a process that has just started
        assert set(periodic.flush(wiring, NEVER)["failed"].values()) == {"full"}  # type: ignore[attr-defined]
        assert _archive_fails(wiring)
        spool = wiring.spool("okx-0-orderbook.trade")
        spool.lock()
        with pytest.raises(OSError, match="No space"):
            spool.append(b"x" * 100_000)
        spool.close()
    assert wiring.buffer.depths()[-1] == waiting[-1]  # the large ones, which need pages
    assert [path.name for path in spool.directory.iterdir() if path.name != "lock"] == []
    code, troubles = _status(rig)
    assert (code, set(troubles)) == (1, {"flush", "archive"})
    assert "the disk is full" in troubles["flush"]["detail"]
    disk.empty()
    _goes_on(rig, content)


def _archive_fails(wiring: Wiring) -> bool:
    try:
        return bool(periodic.archive(wiring, NEVER)["failed"])
    except StoreError:
        return True


@pytest.mark.row("D2")
def test_past_90_percent_nothing_more_is_claimed_while_the_archive_goes_on_and_makes_room(
    rig: Rig, disk: SmallDisk
) -> None:
    content = _recorded(rig)
    wiring = rig.wiring()
    waiting = wiring.buffer.depths()
    disk.fill(leave_bytes=DISK_BYTES * 15 // 100)
    room_left = periodic.room_of(wiring)
    assert room_left.level == "low"
    disk.fill(leave_bytes=DISK_BYTES * 9 // 100)
    report = periodic.flush(wiring, NEVER)
    assert (report["failed"], report["room"]["level"]) == ({}, "full")  # type: ignore[index]
    assert wiring.buffer.depths() == waiting
    code, troubles = _status(rig)
    assert code == 1 and "nothing more is taken out of Redis" in troubles["flush"]["detail"]
    assert periodic.archive(wiring, NEVER)["failed"] == {}
    assert wiring.ledger.totals()[1] > 0  # objects were verified meanwhile
    disk.empty()
    _goes_on(rig, content)


@pytest.mark.row("D2")
def test_a_bound_of_ones_own_is_a_warning_at_80_percent_and_a_stop_at_90(rig: Rig) -> None:
    content = _recorded(rig)
    used = sum(path.stat().st_size for path in rig.settings.storage.segments_path.rglob("*") if path.is_file())
    rig.write({"okx": ["BTC-USDT"]}, storage={"max_local_bytes": int(used / 0.85)})
    tight = rig.wiring()
    assert periodic.room_of(tight).level == "low"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.pipeline.flush.CLAIM_BATCHES", 4)
        report = periodic.flush(tight, NEVER)
    assert report["room"]["level"] in ("low", "full")  # type: ignore[index]
    rig.write({"okx": ["BTC-USDT"]}, storage={"max_local_bytes": int(used / 0.95)})
    full = rig.wiring()
    waiting = full.buffer.depths()
    assert periodic.flush(full, NEVER)["room"]["level"] == "full"  # type: ignore[index]
    assert full.buffer.depths() == waiting
    assert "max_local_bytes" in _status(rig)[1]["flush"]["detail"]
    rig.write({"okx": ["BTC-USDT"]})
    _goes_on(rig, content)


@pytest.mark.row("D4")
def test_on_a_file_system_that_is_read_only_by_now_every_station_says_so_and_goes_on_when_it_is_writable(
    rig: Rig, disk: SmallDisk
) -> None:
    content = _recorded(rig)
    waiting = rig.wiring().buffer.depths()
    until(disk.read_only, "nobody writes")
    wiring = rig.wiring()
    assert set(periodic.flush(wiring, NEVER)["failed"].values()) == {"io"}  # type: ignore[attr-defined]
    assert _archive_fails(wiring)
    assert wiring.buffer.depths() == waiting
    code, troubles = _status(rig)
    assert (code, set(troubles)) == (1, {"flush", "archive"})
    assert disk.read_only(False)
    _goes_on(rig, content)


@pytest.mark.row("D4")
def test_a_stream_that_starts_where_it_can_have_no_spool_records_all_the_same(rig: Rig, disk: SmallDisk) -> None:
    rig.write({"okx": ["BTC-USDT"]})
    wiring = rig.wiring()
    assert disk.read_only()
    made = []
    wiring.runner = lambda stream, lease, spool, *_: made.append(spool) or _Ran()  # type: ignore[assignment,func-returns-value]
    assert collect(wiring, "okx-0-orderbook.trade", NEVER) == "ran"
    with pytest.raises(OSError, match="Read-only"):
        made[0].append(b"x")
    assert disk.read_only(False)
    made[0].append(b"x")
    assert not wiring.spool("okx-0-orderbook.trade").lock(), "it is locked as soon as there is a place for it"
    made[0].close()


class _Ran:
    def run(self) -> str:
        return "ran"


@pytest.mark.row("D2")
@pytest.mark.row("D4")
def test_a_worker_whose_disk_is_full_is_degraded_within_10_s_stays_alive_and_stores_everything_when_there_is_room(
    rig: Rig, disk: SmallDisk, tmp_path: Path, record_property: Record
) -> None:
    exchange = ExchangeProcess(tmp_path / "exchange", rate=20)
    worker = None
    try:
        rig.write({"okx": ["BTC-USDT"]}, exchange.venues)
        wiring = rig.wiring()
        worker = CeleryWorker("disk", "streams,default,flush,archive", 8, rig.directory, rig.environ, "-B")
        until(lambda: worker.alive and sum(held(rig).rows.values()) > 20, "it records", 40)
        disk.fill()
        begun_s = time.monotonic()
        until(lambda: wiring.board.troubles().get("flush", {}).get("level") == "degraded", "it is degraded", 10)
        record_property("degraded_after_s", time.monotonic() - begun_s)
        waiting = sum(depth.events for depth in wiring.buffer.depths())
        until(lambda: sum(depth.events for depth in wiring.buffer.depths()) > waiting + 20, "data waits in Redis")
        disk.empty()
        begun_s = time.monotonic()
        until(lambda: worker.alive and not wiring.board.troubles(), "it goes on by itself", 20)
        record_property("working_again_s", time.monotonic() - begun_s)
        exchange.halt()
        sent = len(exchange.sent())
        until(lambda: sum(len(fate.numbers) for fate in held(rig).fates.values()) >= sent, "all of it is stored")
        account = accounted(rig, exchange.lines())
        assert (account.lost, account.unread) == (0, {})
        assert len(account.held.epochs) == 1, "on the connection it had"
        assert "Traceback" not in worker.log
    finally:
        if worker is not None:
            worker.close()
        exchange.stop()
