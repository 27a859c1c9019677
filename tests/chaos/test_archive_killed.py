"""The archive is killed at every boundary, raced by another one, met by foreign bytes and by damage: each market of each
segment becomes exactly one object with exactly its rows, and no segment goes before that is proved."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.objects import layout, manifest
from app.pipeline.verify import verify
from app.store.ledger import REMOVED, SEALED, SegmentEntry
from app.wiring import Wiring
from tests.chaos.content import first_hour, held
from tests.chaos.sealed import (
    Sealed,
    an_hour,
    assert_archived,
    assert_nothing_removed_unproved,
    conflicts_of,
    sealed_hours,
)
from tests.support import s3_servers
from tests.support.crash import Nursery, Outcome, places
from tests.support.rig import Rig

#: So small that a removal truncates before it unlinks.
TRUNCATE_STEP_BYTES = 150_000

STEPS = [
    "archive.before_write",
    "archive.after_write",
    "archive.after_ledger_written",
    "archive.after_put",
    "archive.after_prove",
    "archive.after_manifest",
    "archive.after_verified",
]
REMOVAL_STEPS = ["removal.before_ledger", "removal.after_ledger", "removal.after_unlink"]


def _killed_at_every_boundary(
    nursery: Nursery,
    attempts: Callable[[int], Rig],
    wired: Callable[[Rig], Wiring],
    sealed: Sealed,
    *,
    effects: bool = True,
    first: int = 1,
    environ: dict[str, str] | None = None,
) -> list[str]:
    """Kill a cycle at one boundary after the other, each time afresh; look; run a whole cycle; look again."""

    def run(number: int, kill_at: int | None) -> tuple[Rig, Outcome]:
        rig = attempts(number)
        options = {"final": True, "truncate_step_bytes": TRUNCATE_STEP_BYTES}
        return rig, nursery.run("archive", rig.path, kill_at=kill_at, effects=effects, environ=environ, **options)

    whole = run(0, None)[1].passed
    for number in places(whole) if effects else range(first, len(whole) + 2):
        rig, outcome = run(number, number)
        wiring = wired(rig)
        try:
            assert (outcome.was_killed, outcome.passed) == (number <= len(whole), whole[:number])
            if outcome.was_killed:
                assert_nothing_removed_unproved(wiring, sealed)
                report = wiring.archive().run(final=True)
                assert (report.failed, report.timed_out) == ({}, False)
            assert_archived(wiring, sealed)
        except AssertionError as error:
            error.add_note(f"killed at boundary {number}: {outcome.passed[-3:]}")
            raise
    return whole


@pytest.mark.exhaustive
@pytest.mark.row("K4")
@pytest.mark.row("K5")
@pytest.mark.row("K7")
@pytest.mark.row("K8")
def test_a_cycle_killed_at_any_boundary_is_finished_by_the_next_one(nursery: Nursery, rig: Rig, tmp_path: Path) -> None:
    sealed = sealed_hours(rig, an_hour("binance", 1, "btcusdt"), an_hour("okx", 2, "BTC-USDT", feeds="t"))

    def attempt(number: int) -> Rig:
        return sealed.copied_to(_rig(tmp_path / str(number)))

    passed = _killed_at_every_boundary(nursery, attempt, Rig.wiring, sealed)
    assert [name for name in passed if not name.startswith("effect.")] == 3 * STEPS + 2 * REMOVAL_STEPS
    effects = {name.removeprefix("effect.") for name in passed if name.startswith("effect.")}
    assert effects == {"fsync", "link", "replace", "truncate", "unlink", "commit"}


def _rig(directory: Path) -> Rig:
    """Redis is nothing to the archive."""
    directory.mkdir()
    return Rig(directory, "redis://127.0.0.1:1/0")


@pytest.fixture(scope="module")
def moto() -> Iterator[s3_servers.Server]:
    with s3_servers.moto() as server:
        yield server


@pytest.mark.exhaustive
@pytest.mark.row("K6")
@pytest.mark.row("K7")
def test_a_cycle_to_a_directory_and_s3_killed_at_any_step_is_finished_by_the_next_one(
    nursery: Nursery, rig: Rig, tmp_path: Path, moto: s3_servers.Server
) -> None:
    sealed = sealed_hours(rig, an_hour("binance", 1, "btcusdt", feeds="t"))

    def attempt(number: int) -> Rig:
        made = sealed.copied_to(_rig(tmp_path / str(number)))
        bucket = f"killed-{uuid.uuid4().hex[:12]}"
        made.write(storage={"mode": "both"}, aws={"bucket": bucket, "endpoint_url": moto.url, "region": "us-east-1"})
        return made

    def wired(made: Rig) -> Wiring:
        return made.wiring(aws=replace(made.settings.aws, access_key=keys[0], secret_key=keys[1]))

    keys = s3_servers.ACCESS_KEY, s3_servers.SECRET_KEY
    environ = {"AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}
    # From where the directory has it: what comes before is no other than without a bucket.
    passed = _killed_at_every_boundary(
        nursery, attempt, wired, sealed, effects=False, first=len(STEPS), environ=environ
    )
    assert passed == 2 * STEPS + REMOVAL_STEPS


@pytest.mark.exhaustive
@pytest.mark.row("C1")
def test_two_archivers_at_once_make_one_object_of_each_market(nursery: Nursery, rig: Rig, tmp_path: Path) -> None:
    sealed = sealed_hours(rig, first_hour, an_hour("okx", 7, "BTC-USDT", "ETH-USDT"), an_hour("bybit", 8, "BTCUSDT"))
    for number in range(4):
        raced = sealed.copied_to(_rig(tmp_path / str(number)))
        both = [nursery.start("archive", raced.path, final=True, cycles=3) for _ in range(2)]
        for archiver in both:
            archiver.wait()
        assert_nothing_removed_unproved(raced.wiring(), sealed)
        assert raced.wiring().archive().run(final=True).failed == {}
        assert_archived(raced.wiring(), sealed)
        assert conflicts_of(raced.wiring().ledger) == []


@pytest.mark.row("S10")
def test_foreign_bytes_under_a_key_are_kept_put_on_record_and_passed_by(rig: Rig, tmp_path: Path) -> None:
    sealed = sealed_hours(rig, an_hour("binance", 1, "btcusdt", "ethusdt"))
    store = rig.wiring().store
    store.prepare()
    (entry,) = rig.wiring().ledger.segments(SEALED)
    key = layout.object_key("binance", "btcusdt", "trade", entry.opened_us)
    foreign = rig.settings.storage.local_path / key
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"PAR1 somebody else's PAR1")
    report = rig.wiring().archive().run(final=True)
    assert (report.failed, report.objects, report.removed_segments) == ({}, 4, [1])
    assert foreign.read_bytes() == b"PAR1 somebody else's PAR1"
    assert conflicts_of(rig.wiring().ledger) == [(key, 1)]
    by_part = {entry[1:4]: entry.key for entry in rig.wiring().ledger.objects()}
    assert by_part["binance", "btcusdt", "trade"] == key.replace(".parquet", "-1.parquet")
    assert [fault.key for fault in verify(store, rig.wiring().ledger).faults] == [key]
    foreign.unlink()
    assert_archived(rig.wiring(), sealed)


@pytest.fixture
def archived(rig: Rig) -> tuple[Rig, Sealed]:
    """Two sealed segments, all of whose objects are verified; both files still there."""

    class Stop(Exception):
        pass

    def stop(name: str) -> None:
        if name == "removal.before_ledger":
            raise Stop

    sealed = sealed_hours(rig, an_hour("binance", 1, "btcusdt"), an_hour("okx", 2, "BTC-USDT"))
    with pytest.raises(Stop):
        rig.wiring(step=stop).archive().run(final=True)
    assert_archived(rig.wiring(), sealed, removed=False)
    return rig, sealed


def _first(rig: Rig) -> tuple[SegmentEntry, Path]:
    entry = rig.wiring().ledger.segments()[0]
    return entry, rig.settings.storage.segments_path / entry.path


def _in_ledger(rig: Rig, statement: str) -> None:
    connection = sqlite3.connect(rig.settings.database.path)
    with connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


def _in_segment(rig: Rig, *statements: str) -> None:
    connection = sqlite3.connect(_first(rig)[1])
    with connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1
    connection.close()


def _manifest_of(rig: Rig, data_type: str) -> Path:
    key = layout.object_key("binance", "btcusdt", data_type, _first(rig)[0].opened_us)
    return rig.settings.storage.local_path / layout.manifest_key(key)


def _told_otherwise(rig: Rig, **changes: Any) -> None:
    path = _manifest_of(rig, "trade")
    path.write_bytes(manifest.encode(msgspec.structs.replace(manifest.decode(path.read_bytes()), **changes)))


ROW = "(exchange, symbol, exchange_sequence_id, timestamp_collector, data, epoch)"
UNPROVED: dict[str, tuple[Callable[[Rig], None], str]] = {
    "an object has another number of rows in the ledger": (
        lambda rig: _in_ledger(rig, "UPDATE objects SET rows = rows + 1 WHERE segment = 1 AND data_type = 'trade'"),
        "has 4 rows, the segment 3",
    ),
    "an object names another sha256 in the ledger": (
        lambda rig: _in_ledger(
            rig, f"UPDATE objects SET sha256 = '{'0' * 64}' WHERE segment = 1 AND data_type = 'trade'"
        ),
        "describes other bytes",
    ),
    "an object names no manifest in the ledger": (
        lambda rig: _in_ledger(rig, "UPDATE objects SET manifest_key = NULL WHERE segment = 1 AND data_type = 'trade'"),
        "has no manifest",
    ),
    "the ledger has an object of a market that the segment does not hold": (
        lambda rig: _in_ledger(
            rig,
            "INSERT INTO objects SELECT segment, exchange, 'xrpusdt', data_type, store, key, rows, size_bytes, sha256,"
            " state, proved_by, manifest_key FROM objects WHERE segment = 1 AND data_type = 'trade'",
        ),
        "objects of markets it does not hold",
    ),
    "a manifest is gone": (lambda rig: _manifest_of(rig, "orderbook").unlink(), "there is no object"),
    "a manifest is no manifest": (lambda rig: _overwrite(_manifest_of(rig, "trade"), b"{"), "not a manifest"),
    "a manifest tells another number of rows": (lambda rig: _told_otherwise(rig, rows=2), "describes other bytes"),
    "a manifest tells other ranges": (lambda rig: _told_otherwise(rig, ranges=()), "lists other ranges"),
    "a row was added to the sealed file": (
        lambda rig: _in_segment(rig, f"INSERT INTO trades {ROW} VALUES ('binance', 'btcusdt', 'x', 1, 'y', 'z')"),
        "has 3 rows, the segment 4",
    ),
    "a row of another market was added to the sealed file": (
        lambda rig: _in_segment(rig, f"INSERT INTO trades {ROW} VALUES ('upbit', 'KRW-BTC', 'x', 1, 'y', 'z')"),
        "rows",
    ),
    "a row was taken from the sealed file": (
        lambda rig: _in_segment(rig, "DELETE FROM orderbooks WHERE id = 2"),
        "has 3 rows, the segment 2",
    ),
    "the sealed file and its ranges tell different numbers": (
        lambda rig: _in_segment(rig, "UPDATE ranges SET stored = stored + 1 WHERE feed = 'trade'"),
        "lists other ranges",
    ),
    "the sealed file is damaged": (lambda rig: _damage(_first(rig)[1]), "segment 1"),
    "the sealed file is gone": (lambda rig: _first(rig)[1].unlink(), "segment 1"),
}


def _overwrite(path: Path, body: bytes) -> None:
    path.write_bytes(body)


def _damage(path: Path) -> None:
    """Zeros over every page but the first."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(16384)
        file.write(bytes(size - 16384))


@pytest.mark.parametrize("name", UNPROVED)
def test_a_segment_stays_and_the_others_go_on_when(name: str, archived: tuple[Rig, Sealed]) -> None:
    rig, _ = archived
    tamper, why = UNPROVED[name]
    tamper(rig)
    before = {path: path.read_bytes() for path in rig.settings.storage.segments_path.rglob("*1.db")}
    report = rig.wiring().archive().run(final=True)
    assert report.removed_segments == [2]
    assert why in " ".join(f"{subject}: {fault}" for subject, fault in report.failed.items())
    assert [(entry.number, entry.state) for entry in rig.wiring().ledger.segments()] == [(1, SEALED), (2, REMOVED)]
    assert {path: path.read_bytes() for path in rig.settings.storage.segments_path.rglob("*1.db")} == before


def test_an_object_whose_verified_row_is_lost_is_archived_again_under_the_same_key(
    archived: tuple[Rig, Sealed],
) -> None:
    rig, sealed = archived
    before = rig.wiring().ledger.objects()
    _in_ledger(rig, "DELETE FROM objects WHERE segment = 1 AND data_type = 'trade'")
    report = rig.wiring().archive().run(final=True)
    assert (report.failed, report.objects, report.removed_segments) == ({}, 1, [1, 2])
    assert assert_archived(rig.wiring(), sealed) == before


def test_a_damaged_segment_does_not_keep_the_others_from_the_archive(rig: Rig) -> None:
    sealed = sealed_hours(
        rig, an_hour("binance", 1, "btcusdt"), an_hour("okx", 2, "BTC-USDT"), an_hour("okx", 3, "BTC-USDT")
    )
    path = _first(rig)[1]
    _damage(path)
    damaged = path.read_bytes()
    report = rig.wiring().archive().run(final=True)
    assert (report.removed_segments, list(report.failed)) == ([2, 3], ["segment 1"])
    assert path.read_bytes() == damaged
    assert sorted(entry[:4] for entry in rig.wiring().ledger.objects()) == sorted(p for p in sealed.rows if p[0] > 1)


@pytest.mark.row("S6")
def test_bytes_that_rot_in_the_store_after_their_proof_are_found_by_verify(archived: tuple[Rig, Sealed]) -> None:
    """A removal believes the proof and the manifest; it does not read every object a second time."""
    rig, _ = archived
    entry = rig.wiring().ledger.objects(1)[0]
    path = rig.settings.storage.local_path / entry.key
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    assert rig.wiring().archive().run(final=True).removed_segments == [1, 2]
    assert [fault.key for fault in verify(rig.wiring().store, rig.wiring().ledger).faults] == [entry.key]


def test_the_records_of_a_removed_segment_are_in_the_ledger_whole_after_a_kill_at_any_step_of_the_removal(
    nursery: Nursery, rig: Rig, tmp_path: Path
) -> None:
    sealed = sealed_hours(rig, first_hour)
    for number in range(1, 2 + len(REMOVAL_STEPS)):
        killed = sealed.copied_to(_rig(tmp_path / str(number)))
        nursery.run("archive", killed.path, kill_at=number, prefix="removal.", final=True)
        assert killed.wiring().archive().run(final=True).failed == {}
        found = held(killed)
        assert (found.facts(), found.replays) == (sealed.facts.facts(), sealed.facts.replays)
        assert_archived(killed.wiring(), sealed)
