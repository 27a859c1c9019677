"""Built-in exchange -> streams -> Redis -> segments -> objects -> proof, with nothing on the way replaced."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.config import load
from app.pipeline import periodic
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


@pytest.mark.parametrize("names", [*([name] for name in MARKETS), list(MARKETS)], ids=[*MARKETS, "all"])
def test_every_event_that_was_sent_is_archived_exactly_once(
    names: list[str], exchanges: ExchangeProcess, rig: Rig
) -> None:
    recording = Recording(exchanges, rig, names)
    wiring = rig.wiring()
    start_us = time.time_ns() // 1000 - 4 * SEGMENT_SECS * 1_000_000
    turn_us = SEGMENT_SECS * 1_000_000
    with Collecting(wiring) as collecting:
        until(collecting.live, "every feed is live")
        first = flush_at(wiring, start_us)
        collecting.more(10 * len(names))
        second = flush_at(wiring, start_us + turn_us)
        assert second.sealed == [first.segment]
        early = archive_once(wiring)
        collecting.more(10 * len(names))
        third = flush_at(wiring, start_us + 2 * turn_us)
        assert third.sealed == [second.segment]
        late = archive_once(wiring)
        recording.halt()
        assert set(collecting.finish().values()) == {"stop"}

    assert (early["removed_segments"], late["removed_segments"]) == ([], [first.segment])
    assert early["rows"] == first.counts.stored > 0
    assert late["rows"] == second.counts.stored > 0
    finish(wiring)
    assert [entry.state for entry in wiring.ledger.segments()] == ["removed"] * len(wiring.ledger.segments())
    checked = verify(wiring.store, wiring.ledger)
    assert (checked.faults, checked.verified) == ([], checked.objects)
    assert figures(wiring, recording.sent).faults == []
    again = compare(wiring, recording.sent_events())
    assert sum(row["duplicates"] for row in records(wiring, "ranges")) == sum(again.values())

    before = everything(wiring)
    flushed = periodic.flush(wiring, NEVER)
    assert (flushed["batches"], flushed["stored"], flushed["sealed"]) == (0, 0, [])
    finish(wiring)
    after = everything(wiring)
    assert {name: value for name, value in after.items() if not name.startswith(("segments", "sqlite_"))} == {
        name: value for name, value in before.items() if not name.startswith(("segments", "sqlite_"))
    }, "only empty segments may come after"
    assert wiring.ledger.segments()[-1].rows == 0


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
        assert {tuple(name.split("/")[:4]) for name in objects} == {
            (*key, "tokyo-1") for key in archived(wiring)
        }
