"""Built-in exchange -> streams -> Redis -> segments -> objects -> proof, with nothing on the way replaced."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from app.config import load
from app.pipeline import periodic
from app.pipeline.flush import FlushReport
from app.pipeline.verify import verify
from app.wiring import Wiring
from tests.support import redis_process, s3_servers
from tests.support.exchanges import ExchangeProcess
from tests.support.path import (
    NEVER,
    Collecting,
    archive_once,
    archived,
    compare,
    figures,
    finish,
    flush_at,
    records,
    segment_files,
    until,
)
from tests.support.rig import MARKETS, Rig

SEGMENT_SECS = 60
RATE = 25


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExchangeProcess]:
    """The built-in exchanges for all tests of this file; each halts them and lets them go on."""
    process = ExchangeProcess(tmp_path_factory.mktemp("exchanges") / "server", rate=RATE)
    yield process
    process.stop()


class Recording:
    """One recording against `exchanges`: what they sent since it began is in `sent`, as their own file says it."""

    def __init__(self, exchanges: ExchangeProcess, rig: Rig, names: list[str], **sections: dict[str, Any]) -> None:
        self.exchanges, self.rig = exchanges, rig
        exchanges.resume()
        self._before = len(exchanges.sent_file.read_bytes())
        rig.write(
            {name: MARKETS[name] for name in names},
            exchanges.venues,
            **{"storage": {"segment_secs": SEGMENT_SECS}, **sections},
        )
        self.sent = rig.directory / "sent.jsonl"

    def halt(self) -> None:
        """No more data; what was sent is in `sent`."""
        self.exchanges.halt()
        self.sent.write_bytes(self.exchanges.sent_file.read_bytes()[self._before :])

    def sent_events(self) -> list[dict[str, Any]]:
        entries = [msgspec.json.decode(line) for line in self.sent.read_bytes().splitlines()]
        return [entry for entry in entries if "data" in entry]


def everything(wiring: Wiring) -> dict[str, Any]:
    """All that is durable: bytes of objects and segments, rows of the ledger."""
    settings = wiring.settings
    files = [path for path in settings.storage.local_path.rglob("*") if path.is_file()] + segment_files(wiring)
    ledger = sqlite3.connect(f"file:{settings.database.path}?mode=ro", uri=True)
    tables = [name for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found: dict[str, Any] = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    found |= {name: sorted(map(repr, ledger.execute(f"SELECT * FROM {name}"))) for name in tables}
    ledger.close()
    return found


class Journey(NamedTuple):
    """A recording of all exchanges over several segments, and what each station reported on the way."""

    recording: Recording
    wiring: Wiring
    flushes: list[FlushReport]
    cycles: list[dict[str, Any]]


@pytest.fixture(scope="module")
def journey(
    exchanges: ExchangeProcess, redis_server: redis_process.RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Journey:
    """Every exchange at once; the segments turn over by a clock that is told, not waited for."""
    rig = Rig(tmp_path_factory.mktemp("journey"), redis_server.url)
    recording = Recording(exchanges, rig, list(MARKETS))
    wiring = rig.wiring()
    turn_us = SEGMENT_SECS * 1_000_000
    start_us = time.time_ns() // 1000 - 4 * turn_us
    flushes, cycles = [], []
    with Collecting(wiring) as collecting:
        until(collecting.live, "every feed is live")
        for turn in range(3):
            flushes.append(flush_at(wiring, start_us + turn * turn_us))
            cycles.append(archive_once(wiring))
            collecting.more(100)
        recording.halt()
        assert set(collecting.finish().values()) == {"stop"}
    finish(wiring)
    return Journey(recording, wiring, flushes, cycles)


@pytest.mark.parametrize("exchange", MARKETS)
def test_every_event_an_exchange_sent_is_archived_exactly_once(exchange: str, journey: Journey) -> None:
    sent = [entry for entry in journey.recording.sent_events() if entry["venue"] == exchange]
    assert {(entry["symbol"], entry["feed"]) for entry in sent} == {
        (symbol, feed) for symbol in MARKETS[exchange] for feed in ("orderbook", "trade")
    }
    again = compare(journey.wiring, sent, exchange)
    ranges = [row for row in records(journey.wiring, "ranges") if row["exchange"] == exchange]
    assert sum(row["duplicates"] for row in ranges) == sum(again.values())
    assert sum(row["stored"] + row["duplicates"] for row in ranges) == len(sent)


def test_all_exchanges_together_balance(journey: Journey) -> None:
    compare(journey.wiring, journey.recording.sent_events())
    assert figures(journey.wiring, journey.recording.sent).faults == []
    checked = verify(journey.wiring.store, journey.wiring.ledger)
    assert (checked.faults, checked.verified) == ([], checked.objects)


def test_a_segment_is_archived_when_its_time_is_over_and_removed_when_its_successor_is_sealed(journey: Journey) -> None:
    first, second, third = journey.flushes
    assert [report.sealed for report in journey.flushes] == [[], [first.segment], [second.segment]]
    assert [cycle["rows"] for cycle in journey.cycles] == [0, first.counts.stored, second.counts.stored]
    assert min(report.counts.stored for report in journey.flushes) > 0
    assert [cycle["removed_segments"] for cycle in journey.cycles] == [[], [], [first.segment]]
    assert third.segment in {entry.number for entry in journey.wiring.ledger.segments("removed")}
    assert {entry.state for entry in journey.wiring.ledger.segments()} == {"removed"}
    assert segment_files(journey.wiring) == []
    opened = {entry.number: entry.opened_us // 1000 for entry in journey.wiring.ledger.segments()}
    for entry in journey.wiring.ledger.objects():
        assert entry.key.split("/")[:3] == [entry.exchange, entry.symbol, entry.data_type]
        assert entry.key.endswith(f"/{opened[entry.segment]}.parquet")


def test_flush_and_archive_once_more_change_nothing(journey: Journey) -> None:
    before = everything(journey.wiring)
    flushed = periodic.flush(journey.wiring, NEVER)
    assert (flushed["batches"], flushed["stored"], flushed["sealed"]) == (0, 0, [])
    finish(journey.wiring)
    after = everything(journey.wiring)
    # The flush opened a segment, which stayed empty and is gone again: numbers are never used twice.
    for tables in (before, after):
        for name in ("segments", "sqlite_sequence"):
            del tables[name]
    assert after == before
    assert journey.wiring.ledger.segments()[-1].rows == 0


def test_a_stream_that_comes_back_stores_nothing_twice_and_counts_what_it_heard_again(
    exchanges: ExchangeProcess, rig: Rig
) -> None:
    recording = Recording(exchanges, rig, list(MARKETS))
    wiring = rig.wiring()
    with Collecting(wiring) as collecting:
        until(collecting.live, "every feed is live")
        exchanges.halt()
    first = {epoch["epoch"] for epoch in epochs_in_open_segment(wiring)}
    with Collecting(wiring) as collecting:
        # Four answers to its subscriptions, and heartbeats: by then every stream has said what it wants.
        coinbase = until(lambda: collecting.runners.get("coinbase-0-orderbook.trade"), "a runner for Coinbase")
        until(lambda: coinbase.progress.frames >= 6, "Coinbase has answered")
        exchanges.resume()
        until(collecting.live, "every feed is live again")
        collecting.more(50)
        recording.halt()
    finish(wiring)

    assert len(first) == len(MARKETS)
    assert {row["epoch"] for row in records(wiring, "epochs")} > first
    assert {row["reason"] for row in records(wiring, "epochs")} == {"stop"}
    again = compare(wiring, recording.sent_events())
    counted: dict[tuple[str, str], int] = {}
    for row in records(wiring, "ranges"):
        if row["duplicates"]:
            key = row["exchange"], row["feed"]
            counted[key] = counted.get(key, 0) + row["duplicates"]
    assert counted == again
    # Both tell who subscribes anew what the last trade was, in other words than the first time.
    assert (again["coinbase", "trade"], again["upbit", "trade"]) == (2, 2)
    assert figures(wiring, recording.sent).faults == []


def epochs_in_open_segment(wiring: Wiring) -> list[dict[str, Any]]:
    """Epochs on record so far."""
    periodic.flush(wiring, NEVER)
    (entry,) = wiring.ledger.segments("open")
    connection = sqlite3.connect(wiring.settings.storage.segments_path / entry.path)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("SELECT * FROM epochs")]
    connection.close()
    return found


def rclone(directory: Path) -> AbstractContextManager[s3_servers.Server]:
    (directory / "rclone").mkdir()
    return s3_servers.rclone(directory / "rclone")


@pytest.mark.parametrize("server", [lambda _: s3_servers.moto(), rclone], ids=["moto", "rclone"])
def test_the_archive_in_a_bucket_is_as_complete_as_on_disk(
    server: Callable[[Path], AbstractContextManager[s3_servers.Server]],
    exchanges: ExchangeProcess,
    redis_server: redis_process.RedisProcess,
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, redis_server.url)
    with server(tmp_path) as running:
        running.client().create_bucket(Bucket="market-data")
        recording = Recording(
            exchanges,
            rig,
            ["okx", "upbit"],
            storage={"mode": "s3", "segment_secs": SEGMENT_SECS},
            aws={
                "bucket": "market-data", "region": "us-east-1", "endpoint_url": running.url, "home_server_name": "tokyo-1",
            },
        )  # fmt: skip
        keys = {"AWS_ACCESS_KEY": s3_servers.ACCESS_KEY, "AWS_SECRET_KEY": s3_servers.SECRET_KEY}
        wiring = Wiring(load(rig.path, keys).settings)
        with Collecting(wiring) as collecting:
            until(collecting.live, "every feed is live")
            collecting.more(20)
            recording.halt()
        finish(wiring)

        assert {entry.proved_by for entry in wiring.ledger.objects()} == {"read_back"}
        compare(wiring, recording.sent_events())
        assert figures(wiring, recording.sent).faults == []
        names = [item["Key"] for item in running.client().list_objects_v2(Bucket="market-data")["Contents"]]
        objects = {name for name in names if name.endswith(".parquet")}
        assert objects == {entry.key for entry in wiring.ledger.objects()}
        assert {tuple(name.split("/")[:4]) for name in objects} == {(*key, "tokyo-1") for key in archived(wiring)}
