"""The host does its worst: its clock steps, its day turns, its power fails, its monitors hang, its beat is away."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.clock import wall_us
from app.objects.layout import parse_key
from app.pipeline import periodic
from app.store.ledger import REMOVED
from tests.chaos.content import HOUR_US, T0_US, Content, held
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, Collecting, archived, compare, finish, flush_at, records, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import CHECKOUT, Rig

DAY_US = 24 * HOUR_US
Record = Callable[[str, object], None]


def _once(rig: Rig) -> dict[str, list[str]]:
    """Symbol -> identities in the archive, each there once and in one object."""
    found = {symbol: [name for name, _ in rows] for (_, symbol, _), rows in archived(rig.wiring()).items()}
    for identities in found.values():
        assert len(set(identities)) == len(identities)
    return found


@pytest.mark.row("T1")
def test_while_the_wall_clock_steps_by_hours_streams_stay_live_and_every_event_is_archived_once(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = ExchangeProcess(tmp_path / "exchange", rate=20)
    try:
        rig.write({"okx": ["BTC-USDT"], "binance": ["btcusdt"]}, exchange.venues)
        step_us = [0]
        for part in ("app.wiring", "app.pipeline.assembly"):
            monkeypatch.setattr(f"{part}.wall_us", lambda: wall_us() + step_us[0])
        wiring = rig.wiring()
        sealed = set()
        with Collecting(wiring) as collecting:
            until(collecting.live, "live")
            for step in (0, -HOUR_US, HOUR_US, -2 * HOUR_US, 25 * HOUR_US):
                step_us[0] = step
                collecting.more(15)
                report = periodic.flush(wiring, NEVER)
                assert report["failed"] == {}
                sealed.update(report["sealed"])  # type: ignore[arg-type]
                assert periodic.archive(wiring, NEVER)["failed"] == {}
                assert collecting.live()
            exchange.halt()
            collecting.finish()
        assert len(sealed) >= 2  # forwards it turned over; backwards it went on
        finish(wiring)
        assert compare(wiring, exchange.sent()) == {}
        assert (records(wiring, "gaps"), records(wiring, "losses")) == ([], [])
        assert len(records(wiring, "epochs")) == 2, "on the connections they had"
        received = [row[name] for row in records(wiring, "ranges") for name in ("first_us", "last_us")]
        assert max(received) - min(received) > 24 * HOUR_US, "the streams saw the steps"
    finally:
        exchange.stop()


@pytest.mark.row("T1")
def test_segments_opened_at_the_same_time_by_a_clock_that_was_set_back_have_an_object_each(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content()
    c = content.connection("okx-0-trade", 40, T0_US)
    expected = []
    for number, now_us in enumerate((T0_US, T0_US, T0_US - HOUR_US, T0_US)):
        wiring = rig.wiring()
        split = len(content.elements)
        c.push(
            c.trade("BTC-USDT", number), c.trade("BTC-USDT", number + 1)
        )  # the first is a twin of the segment before
        expected += ["0", "1"] if not number else [str(number + 1)]
        content.push(wiring.buffer, content.elements[split:])
        monkeypatch.setattr("app.wiring.wall_us", lambda now_us=now_us: now_us)
        assert periodic.flush(wiring, NEVER, seal=True)["failed"] == {}
    assert periodic.archive(rig.wiring(), NEVER, final=True)["failed"] == {}
    keys = sorted(key for key in rig.wiring().store.keys("") if key.endswith(".parquet"))
    assert len(keys) == 4
    assert sorted(_once(rig)["BTC-USDT"]) == sorted(expected)
    assert {entry.state for entry in rig.wiring().ledger.segments() if entry.rows} == {REMOVED}


@pytest.fixture
def summer_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host in a place whose clocks are put back on 2026-11-01 at 06:00 UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.row("T2")
def test_over_hours_midnight_and_the_end_of_summer_time_each_row_is_in_exactly_one_object_of_its_utc_hour(
    rig: Rig, summer_time: None
) -> None:
    content = Content()
    edges = [
        1_793_509_200_000_000 + hour * HOUR_US  # 2026-11-01 05:00 UTC: 01:00 local, which comes twice
        for hour in (-6, -5, -1, 0, 1, 2)  # midnight UTC is five hours before
    ]
    assert time.localtime(edges[3] / 1e6).tm_hour == time.localtime(edges[4] / 1e6).tm_hour == 1
    expected: dict[int, list[str]] = {}
    for number, edge_us in enumerate(edges):
        for side in (-1, 0):  # the last microsecond of an hour, and the first of the next
            wiring = rig.wiring()
            c = content.connection("okx-0-trade", 50 + 2 * number + side, edge_us + side)
            split = len(content.elements)
            identity = 10 * number + side + 1
            c.push(c.trade("BTC-USDT", identity), end="stop")
            content.push(wiring.buffer, content.elements[split:])
            assert flush_at(wiring, edge_us + side).failed == {}
            expected.setdefault((edge_us + side) // HOUR_US, []).append(str(identity))
    flush = rig.wiring().flush()
    flush.turn_over(flush.run(keep_going=lambda: False), now=True)
    assert periodic.archive(rig.wiring(), NEVER, final=True)["failed"] == {}
    _once(rig)
    found: dict[int, list[str]] = {}
    for entry in rig.wiring().ledger.objects():
        start_us = parse_key(entry.key).start_ms * 1000
        assert f"/{time.strftime('%Y-%m-%d', time.gmtime(start_us / 1e6))}/" in entry.key
        with rig.wiring().store.open(entry.key) as file:
            from app.objects import parquet

            found.setdefault(start_us // HOUR_US, []).extend(row[0] for chunk in parquet.read(file) for row in chunk)
    assert found == expected
    assert held(rig).facts() == content.expected


@pytest.mark.row("C5")
def test_after_five_hours_without_an_archive_one_run_makes_one_object_of_each_hour(rig: Rig) -> None:
    content = Content()
    for hour in range(6):
        wiring = rig.wiring()
        split = len(content.elements)
        c = content.connection("okx-0-trade", 60 + hour, T0_US + hour * HOUR_US)
        c.push(*(c.trade("BTC-USDT", 10 * hour + n) for n in range(5)), end="stop")
        content.push(wiring.buffer, content.elements[split:])
        flush_at(wiring, T0_US + hour * HOUR_US)
    report = periodic.archive(rig.wiring(), NEVER)
    assert (report["failed"], report["objects"], report["removed_segments"]) == ({}, 5, [1, 2, 3, 4])
    hours = [parse_key(entry.key).start_ms * 1000 for entry in rig.wiring().ledger.objects()]
    assert hours == [T0_US + hour * HOUR_US for hour in range(5)]
    assert held(rig).facts() == content.expected


@pytest.mark.row("C2")
def test_an_archive_that_takes_longer_than_its_interval_keeps_its_lock_and_every_other_run_skips(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "LOCK_SECS", 0.6)
    content = Content()
    c = content.connection("okx-0-trade", 70, T0_US)
    c.push(c.trade("BTC-USDT", 1), end="stop")
    content.push(rig.wiring().buffer)
    flush_at(rig.wiring(), T0_US)
    flush_at(rig.wiring(), T0_US + HOUR_US)
    waits, go_on = threading.Event(), threading.Event()

    def slow(step: str) -> None:
        if step == "archive.after_write":
            waits.set()
            assert go_on.wait(30)

    reports: list[dict[str, object]] = []
    thread = threading.Thread(target=lambda: reports.append(periodic.archive(rig.wiring(step=slow), NEVER)))
    thread.start()
    assert waits.wait(30)
    skipped = 0
    until_s = time.monotonic() + 2  # three times as long as the lock lives without being renewed
    while time.monotonic() < until_s:
        assert periodic.archive(rig.wiring(), NEVER) == {"skipped": "another cycle is going on"}
        skipped += 1
        go_on.wait(0.2)
    go_on.set()
    thread.join(30)
    assert skipped > 1
    assert [(report["failed"], report["objects"]) for report in reports] == [({}, 1)]
    assert len([key for key in rig.wiring().store.keys("") if key.endswith(".parquet")]) == 1


@pytest.mark.row("O1")
def test_while_the_web_process_hangs_or_is_gone_recording_goes_on(rig: Rig, tmp_path: Path) -> None:
    exchange = ExchangeProcess(tmp_path / "exchange", rate=20)
    environ = {**rig.environ, "PORT": "0"}
    web = None
    try:
        rig.write({"okx": ["BTC-USDT"]}, exchange.venues)
        wiring = rig.wiring()
        with (tmp_path / "web.log").open("wb") as log:
            web = subprocess.Popen(
                [sys.executable, "-m", "app", "web"], cwd=CHECKOUT, env=environ, stdout=log, stderr=log
            )
        with Collecting(wiring) as collecting:
            until(lambda: b"running on" in (tmp_path / "web.log").read_bytes().lower(), "the web process runs", 40)
            for number in (signal.SIGSTOP, signal.SIGKILL):
                os.kill(web.pid, number)
                collecting.more(20)
                assert periodic.flush(wiring, NEVER)["failed"] == {}
                assert collecting.live()
            exchange.halt()
            collecting.finish()
        finish(wiring)
        assert compare(wiring, exchange.sent()) == {}
        assert len(records(wiring, "epochs")) == 1
    finally:
        if web is not None:
            web.kill()
            web.wait()
        exchange.stop()


@pytest.mark.row("K11")
@pytest.mark.parametrize("seed", range(3))
def test_when_the_power_fails_what_had_not_reached_the_disk_is_declared_lost_and_nothing_stands_twice(
    tmp_path: Path, own_redis: RedisProcess, seed: int, record_property: Record
) -> None:
    """What a disk may be left with: segments as of a moment in a run, their log torn anywhere behind the last sync; the
    append-only file of Redis torn anywhere in its last second."""
    chance = random.Random(seed)
    (tmp_path / "rig").mkdir()
    rig = Rig(tmp_path / "rig", own_redis.url)
    data = rig.directory / "data"
    content = Content()
    c = content.connection("okx-0-trade", 80 + seed, T0_US)
    for number in range(60):
        c.push(*(c.trade("BTC-USDT", 10 * number + n) for n in range(3)), end="stop" if number == 59 else "")
    (aof,) = (tmp_path / "own-redis").rglob("*.incr.aof")
    content.push(rig.wiring().buffer, content.elements[:40])
    flush_at(rig.wiring(), T0_US)  # all of that is on the disk, and gone from Redis
    content.push(rig.wiring().buffer, content.elements[40:45])
    synced_bytes = aof.stat().st_size
    content.push(rig.wiring().buffer, content.elements[45:50])
    moments: list[Path] = []

    def moment(step: str) -> None:
        copy = tmp_path / f"moment-{len(moments)}"
        shutil.copytree(data, copy)
        moments.append(copy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.pipeline.flush.CLAIM_BATCHES", 4)
        rig.wiring(step=moment).flush().run()
    at = chance.randrange(1, len(moments))
    own_redis.kill()
    os.truncate(aof, chance.randrange(synced_bytes, aof.stat().st_size))
    shutil.rmtree(data)
    shutil.copytree(moments[at], data)
    for wal in data.rglob("*.db-wal"):  # frames of a transaction that was never committed
        with wal.open("ab") as file:
            file.write(chance.randbytes(chance.randrange(0, 20_000)))
    for shared in data.rglob("*-shm"):
        shared.unlink()
    own_redis.start()

    assert periodic.flush(rig.wiring(), NEVER)["failed"] == {}
    content.push(rig.wiring().buffer, content.elements[50:])
    assert periodic.flush(rig.wiring(), NEVER)["failed"] == {}
    found = held(rig)
    assert not found.rows - content.expected.rows
    assert set(found.rows.values()) == {1}
    (fate,) = found.fates.values()
    lost = {n for loss in found.losses for n in range(loss[3], loss[4] + 1)}
    record_property("lost", len(lost))
    assert {loss[6] for loss in found.losses} <= {"buffer_lost"}
    assert fate.numbers | lost == set(range(1, 181))
    assert not fate.numbers & lost
    assert lost <= set(range(121, 151)), "at most what was pushed after the last sync, or was in a claim"


ROWS = 25_000
_ARCHIVE = """
import sys, threading
from pathlib import Path
from app.commands.settings import wired
from app.pipeline import periodic
report = periodic.archive(wired(), threading.Event(), final=True)
assert report["rows"] == int(sys.argv[1]) and not report["failed"], report
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc for the peak memory of a process")
@pytest.mark.row("K10")
def test_an_archive_of_a_large_segment_takes_no_more_memory_than_one_of_a_small_one(
    rig: Rig, tmp_path: Path, redis_server: RedisProcess, record_property: Record
) -> None:
    peaks = {}
    for rows in (2_000, ROWS):
        (tmp_path / str(rows)).mkdir()
        one = Rig(tmp_path / str(rows), redis_server.url)
        flush_at(one.wiring(), T0_US)
        _fill(one, rows)
        flush = one.wiring().flush()
        flush.turn_over(flush.run(keep_going=lambda: False), now=True)
        done = subprocess.run(
            [sys.executable, "-c", _ARCHIVE, str(rows)], cwd=CHECKOUT, env=one.environ, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        peaks[rows] = int(done.stdout) // 1024
    record_property("peak_mib", peaks)

    assert peaks[ROWS] < peaks[2_000] + 64
    assert peaks[ROWS] < 256


def _fill(rig: Rig, rows: int) -> None:
    """So many rows of 2 KB, past Redis: the range that they are the numbers of beside them."""
    import sqlite3
    from contextlib import closing

    path = rig.settings.storage.segments_path / rig.wiring().ledger.segments()[0].path
    many: Any = (
        ("okx", "BTC-USDT", str(n), T0_US + n, None, f'"{n}-{random.Random(n).randbytes(900).hex()}"', "e" * 32)
        for n in range(rows)
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO trades (exchange, symbol, exchange_sequence_id, timestamp_collector, timestamp_exchange, data,"
            " epoch) VALUES (?, ?, ?, ?, ?, ?, ?)", many,
        )  # fmt: skip
        connection.execute(
            "INSERT INTO ranges (epoch, exchange, symbol, feed, first, last, stored, duplicates, conflicts, quarantined)"
            " VALUES (?, 'okx', 'BTC-USDT', 'trade', 1, ?, ?, 0, 0, 0)", ("e" * 32, rows, rows),
        )  # fmt: skip
