"""A new version started on the data directory, the Redis lists and the spools of the version before it goes on.

Each directory tests/fixtures/version-* was left behind by that version's own code (tests/support/old_version.py says how).
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.config import load
from app.launch.environment import clean
from app.pipeline import periodic
from app.pipeline.verify import verify
from app.wiring import Wiring
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, compare, records, segment_files, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import CHECKOUT

pytestmark = pytest.mark.exhaustive

VERSIONS = sorted((CHECKOUT / "tests" / "fixtures").glob("version-*"))
#: Tables of records, and the columns of version 0.1 that a row is known by for ever.
RECORDS = {
    "epochs": ("epoch", "stream", "exchange", "opened_us", "ended_us", "reason", "last_numbers"),
    "ranges": (
        "epoch",
        "exchange",
        "symbol",
        "feed",
        "first",
        "last",
        "stored",
        "duplicates",
        "conflicts",
        "quarantined",
    ),
    "losses": ("epoch", "exchange", "symbol", "feed", "first", "last", "count", "start_us", "end_us", "cause"),
    "gaps": (
        "epoch",
        "exchange",
        "symbol",
        "feed",
        "number",
        "from_id",
        "to_id",
        "size",
        "before_us",
        "after_us",
        "cause",
    ),
    "quarantine": ("epoch", "exchange", "symbol", "feed", "number", "received_us", "reason", "frame"),
    "replays": ("epoch", "symbol", "feed", "first", "last", "times"),
}
OBJECTS = ("segment", "exchange", "symbol", "data_type", "store", "key", "rows", "size_bytes", "sha256")
Rows = set[tuple[Any, ...]]


class Old:
    """What a version left behind, copied, its lists put back into a Redis; and the version of today at work on it."""

    def __init__(self, fixture: Path, home: Path, server: RedisProcess) -> None:
        with tarfile.open(fixture / "data.tar.xz") as tar:
            tar.extractall(home)  # our own file; `filter` came with 3.11.4
        self.home, self.data = home, home / "data"
        prefix = f"upgrade-{os.urandom(4).hex()}"
        self.environ = {
            **clean(os.environ),
            "CONFIG_PATH": str(fixture / "settings.toml"),
            "COLLECTOR_DATABASE__PATH": str(self.data / "collector.db"),
            "COLLECTOR_STORAGE__LOCAL_PATH": str(self.data / "objects"),
            "COLLECTOR_COLLECTOR__BATCH_INTERVAL_SECS": "1",
            "COLLECTOR_COLLECTOR__LOG_DIR": str(home / "logs"),
            "COLLECTOR_REDIS__URL": server.url,
            "COLLECTOR_REDIS__PREFIX": prefix,
        }
        client = server.client()
        waiting = json.loads((fixture / "redis.json").read_text())
        for name, elements in waiting["lists"].items():
            client.rpush(f"{prefix}:{name}", *map(base64.b64decode, elements))
        for name, held in waiting["hashes"].items():
            client.hset(f"{prefix}:{name}", mapping=held)
        with gzip.open(fixture / "sent.ndjson.gz") as packed:
            self.sent = [json.loads(line) for line in packed]
        self.ledger_before = self._ledger()
        self.removed_before = self._records(self.data / "collector.db")
        self.waiting_before = self._records(*(self.data / "segments").rglob("*.db"))
        self.records_before = {name: self.removed_before[name] | self.waiting_before[name] for name in RECORDS}
        self.objects_before = self.object_bytes()

    def _ledger(self) -> dict[str, Any]:
        """Read by SQLite alone: who the data directory is, its segments and its objects."""
        with closing(sqlite3.connect(f"file:{self.data}/collector.db?mode=ro", uri=True)) as ledger:
            return {
                "data_directory": ledger.execute("SELECT value FROM meta WHERE key = 'data_directory'").fetchone()[0],
                "segments": dict(ledger.execute("SELECT number, state FROM segments")),
                "objects": set(ledger.execute(f"SELECT {', '.join(OBJECTS)} FROM objects WHERE state = 'verified'")),
            }

    def _records(self, *paths: Path) -> dict[str, Rows]:
        """Rows of every table of records, read by SQLite alone."""
        found: dict[str, Rows] = {name: set() for name in RECORDS}
        for path in paths:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as held:
                for name, columns in RECORDS.items():
                    quoted = ", ".join(f'"{column}"' for column in columns)
                    found[name] |= set(held.execute(f"SELECT {quoted} FROM {name}"))
        return found

    def object_bytes(self) -> dict[str, bytes]:
        """Every object and manifest, by its key."""
        root = self.data / "objects"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*") if path.is_file()}

    @property
    def wiring(self) -> Wiring:
        return Wiring(load(environ=self.environ).settings)

    def collector(self, *arguments: str) -> str:
        """A command of today, which must end with 0; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "app", *arguments], cwd=CHECKOUT, env=self.environ, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def work(self, server: ExchangeProcess) -> None:
        """A worker of today records for a moment, in the same lists, spools and segments."""
        for name, urls in server.venues.items():
            for key, url in urls.items():
                self.environ[f"COLLECTOR_EXCHANGES__{name.upper()}__{key.upper()}"] = url
        wiring = self.wiring
        names = list(wiring.streams)
        with (self.home / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "app", "worker", "--without-mingle", "-B",
                 "-s", str(self.home / "schedule")],
                cwd=CHECKOUT, env=self.environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            until(
                lambda: sum(s["events"] > 5 for s in wiring.board.states(names).values()) == len(names),
                "every stream has events", 40,
            )  # fmt: skip
            until(lambda: not list((self.data / "spool").rglob("*.spool")), "the spools are drained", 40)
            server.halt()
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0, (self.home / "worker.log").read_text()[-3000:]
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda path: path.name)
def old(
    request: pytest.FixtureRequest, redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Old]:
    """Taken all the way: checked, flushed, archived, recorded on, and brought to an end."""
    home = tmp_path_factory.mktemp("upgrade")
    old = Old(request.param, home, redis_server)
    old.collector("check")
    flushed = periodic.flush(old.wiring, NEVER)
    assert (flushed["failed"], flushed["batches"] != 0, old.wiring.buffer.depths()) == ({}, True, [])
    archived = periodic.archive(old.wiring, NEVER)
    assert (archived["failed"], archived["objects"] != 0) == ({}, True)
    assert verify(old.wiring.store, old.wiring.ledger).faults == []
    server = ExchangeProcess(home / "exchanges", rate=5, seed=1)
    try:
        old.work(server)
    finally:
        server.stop()
    old.collector("archive", "--final")
    old.sent += server.lines()
    yield old


def test_the_fixtures_hold_what_an_upgrade_may_meet(old: Old) -> None:
    states = old.ledger_before["segments"].values()
    assert {"removed", "sealed", "open"} <= set(states)
    assert len(old.ledger_before["objects"]) > 1
    assert {row[1] for row in old.records_before["epochs"]} == set(old.wiring.streams)
    for held in (old.removed_before, old.waiting_before):
        assert {name for name, rows in held.items() if rows} >= {"epochs", "ranges", "gaps", "quarantine"}


@pytest.mark.row("C7")
@pytest.mark.row("D5")
def test_everything_sent_to_the_old_version_and_to_this_one_is_archived_once_byte_for_byte(old: Old) -> None:
    compare(old.wiring, [entry for entry in old.sent if "data" in entry])


def test_nothing_is_left_waiting_anywhere(old: Old) -> None:
    assert old.wiring.buffer.depths() == []
    assert segment_files(old.wiring) == []
    assert list((old.data / "spool").rglob("*.spool")) == list((old.data / "spool").rglob("*.damaged")) == []
    assert {entry.state for entry in old.wiring.ledger.segments()} == {"removed"}


def test_the_data_directory_is_still_the_one_it_was_and_its_numbers_go_on(old: Old) -> None:
    assert old.wiring.ledger.data_directory == old.ledger_before["data_directory"]
    numbers = [entry.number for entry in old.wiring.ledger.segments()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert set(old.ledger_before["segments"]) <= set(numbers)


def test_objects_of_the_old_version_are_untouched_and_the_archive_verifies(old: Old) -> None:
    assert old.objects_before.items() <= old.object_bytes().items()
    assert old.ledger_before["objects"] <= {
        tuple(getattr(entry, name) for name in OBJECTS)
        for entry in old.wiring.ledger.objects()
        if entry.state == "verified"
    }
    report = json.loads(old.collector("verify", "--json"))
    assert (report["faults"], report["verified"]) == ([], report["objects"])


def test_the_audit_accounts_for_every_number_of_the_old_version_and_of_this_one(old: Old) -> None:
    found = json.loads(old.collector("audit", "--deep", "--json"))
    assert (found["differences"], found["epochs_open"], found["totals"]["holes"]) == ([], [], 0)
    assert found["totals"]["archived"] == found["deep"]["rows"] > 0


@pytest.mark.parametrize("name", [name for name in RECORDS if name != "ranges"])
def test_every_record_of_the_old_version_is_still_there(old: Old, name: str) -> None:
    columns = RECORDS[name]
    found = records(old.wiring, name)
    now = {tuple(row[column] for column in columns) for row in found}
    # The end of an epoch stands in a later segment than its beginning.
    begun = {tuple(row[column] for column in columns[:4]) for row in found}
    lost = old.records_before[name] - now
    assert {row for row in lost if name != "epochs" or row[4] is not None or row[:4] not in begun} == set()


def test_every_number_of_every_epoch_has_the_outcome_it_had(old: Old) -> None:
    """A range may have grown, if the open segment was gone on with: its numbers and sums are what stays."""

    def numbers(rows: Rows) -> dict[tuple[str, str, str], set[int]]:
        found: dict[tuple[str, str, str], set[int]] = {}
        for row in rows:
            found.setdefault((row[0], row[2], row[3]), set()).update(range(row[4], row[5] + 1))
        return found

    now: Rows = {tuple(row[column] for column in RECORDS["ranges"]) for row in records(old.wiring, "ranges")}
    held, before = numbers(now), numbers(old.records_before["ranges"])
    assert {key for key, found in before.items() if not found <= held.get(key, set())} == set()
    for at in range(6, 10):
        assert sum(row[at] for row in now if row[0] in {key[0] for key in before}) >= sum(
            row[at] for row in old.records_before["ranges"]
        )
    for row in now:
        assert row[5] - row[4] + 1 == row[6] + row[7] + row[9]


def test_every_epoch_has_its_end_and_every_number_up_to_it_an_outcome(old: Old) -> None:
    covered: dict[tuple[str, str, str], int] = {}
    for name in ("ranges", "losses"):
        for row in records(old.wiring, name):
            key = row["epoch"], row["symbol"], row["feed"]
            covered[key] = covered.get(key, 0) + row["last"] - row["first"] + 1
    epochs = records(old.wiring, "epochs")
    assert [row for row in epochs if row["ended_us"] is None] == []
    promised = {
        (row["epoch"], symbol, feed): last
        for row in epochs
        for symbol, feed, last in json.loads(row["last_numbers"])
        if last
    }
    assert covered == promised
