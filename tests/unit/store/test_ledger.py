"""The ledger in a real file: states move once, numbers never come again, records outlive their segments."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread

import pytest

from app.errors import CollectorError
from app.store.engine import writable
from app.store.ledger import (
    OPEN,
    REMOVED,
    REMOVING,
    SEALED,
    SEALING,
    VERIFIED,
    WRITTEN,
    Ledger,
    ObjectEntry,
    SegmentEntry,
)
from app.store.reading import read_ledger
from app.store.segment import relative_path
from tests.support.batches import EPOCH, OPENED_US
from tests.support.segments import query

OTHER = "0b" * 16
HOUR_US = 3_600_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "data" / "collector.db")


def path_of(number: int, opened_us: int) -> str:
    return relative_path(number, opened_us)


def removed(ledger: Ledger, records: dict[str, list[dict[str, object]]] | None = None) -> int:
    """A segment brought to `removing` with these records; returns its number."""
    entry = ledger.open_segment(OPENED_US, path_of)
    ledger.move_segment(entry.number, OPEN, SEALING)
    ledger.move_segment(entry.number, SEALING, SEALED, sealed_us=OPENED_US + 1)
    assert ledger.begin_removal(entry.number, 5, {name: [rows] for name, rows in (records or {}).items()})
    return entry.number


def an_object(**changes: object) -> ObjectEntry:
    entry = ObjectEntry(
        1, "okx", "BTC-USDT", "trade", "s3://b", "okx/k.parquet", 10, 999, "ab" * 32, WRITTEN, None, None
    )
    return entry._replace(**changes)  # type: ignore[arg-type]


# the directory


def test_a_data_directory_keeps_its_id_for_ever_and_differs_from_any_other(tmp_path: Path) -> None:
    one, same, other = (Ledger(tmp_path / name / "collector.db") for name in ("a", "a", "b"))
    assert one.data_directory == same.data_directory
    assert one.data_directory != other.data_directory
    assert len(one.data_directory) == 32


def test_processes_that_open_a_new_ledger_at_once_agree_on_its_id(tmp_path: Path) -> None:
    path, found, start = tmp_path / "collector.db", [], Barrier(4)

    def open_it() -> None:
        start.wait()
        found.append(Ledger(path).data_directory)

    threads = [Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_ledger_of_a_newer_version_is_refused_with_both_versions(ledger: Ledger) -> None:
    with writable(ledger.path).begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '9' WHERE key = 'schema_version'")
    with pytest.raises(CollectorError, match="schema 9; this version reads 1 to 3"):
        Ledger(ledger.path)


# segments


def test_there_is_one_open_segment_and_asking_again_gives_the_same(ledger: Ledger) -> None:
    first = ledger.open_segment(OPENED_US, path_of)
    assert first == SegmentEntry(1, "2026-03-01/0000-1.db", OPENED_US, None, OPEN, None)
    assert ledger.open_segment(OPENED_US + HOUR_US, path_of) == first
    assert ledger.segments() == [first]


def test_a_number_is_never_used_again_even_when_its_entry_is_gone(ledger: Ledger) -> None:
    for number in (1, 2):
        assert ledger.open_segment(OPENED_US, path_of).number == number
        assert ledger.move_segment(number, OPEN, SEALING)
    with writable(ledger.path).begin() as connection:
        connection.exec_driver_sql("DELETE FROM segments")
    assert Ledger(ledger.path).open_segment(OPENED_US, path_of).number == 3


def test_a_state_moves_once_and_only_from_the_state_named(ledger: Ledger) -> None:
    ledger.open_segment(OPENED_US, path_of)
    assert ledger.move_segment(1, SEALING, SEALED) is False
    assert [ledger.move_segment(1, OPEN, SEALING) for _ in range(2)] == [True, False]
    assert ledger.move_segment(1, SEALING, SEALED, sealed_us=77, rows=12)
    assert ledger.move_segment(2, OPEN, SEALING) is False
    assert ledger.segments() == [SegmentEntry(1, "2026-03-01/0000-1.db", OPENED_US, 77, SEALED, 12)]


def test_of_many_who_move_a_segment_one_does(ledger: Ledger) -> None:
    ledger.open_segment(OPENED_US, path_of)
    start, moved = Barrier(5), []

    def move() -> None:
        mine = Ledger(ledger.path)
        start.wait()
        moved.append(mine.move_segment(1, OPEN, SEALING))

    threads = [Thread(target=move) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(moved) == [False, False, False, False, True]


def test_segments_are_listed_oldest_first_and_by_state(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        ledger.open_segment(OPENED_US, path_of)
        if number < 3:
            ledger.move_segment(number, OPEN, SEALING)
    ledger.move_segment(1, SEALING, SEALED)
    assert [(s.number, s.state) for s in ledger.segments()] == [(1, SEALED), (2, SEALING), (3, OPEN)]
    assert [s.number for s in ledger.segments(SEALING, SEALED)] == [1, 2]
    assert ledger.segments(REMOVED) == []


# objects


def test_what_is_written_may_be_written_anew_until_it_is_verified(ledger: Ledger) -> None:
    ledger.write_object(an_object())
    better = an_object(key="okx/k-2.parquet", sha256="cd" * 32)
    ledger.write_object(better)
    assert ledger.objects() == [better]
    assert ledger.verify_object(better, "checksum", "okx/k-2.json")
    ledger.write_object(an_object(key="okx/k-3.parquet", sha256="ef" * 32))
    assert ledger.objects() == [better._replace(state=VERIFIED, proved_by="checksum", manifest_key="okx/k-2.json")]


@pytest.mark.parametrize(
    "other", [{"sha256": "00" * 32}, {"key": "elsewhere"}, {"store": "file:/x"}, {"segment": 2}, {"symbol": "ETH-USDT"}]
)
def test_only_exactly_the_bytes_on_record_become_verified(ledger: Ledger, other: dict[str, object]) -> None:
    ledger.write_object(an_object())
    assert ledger.verify_object(an_object(**other), "read back", "m.json") is False
    assert ledger.objects() == [an_object()]


def test_an_object_is_verified_once(ledger: Ledger) -> None:
    ledger.write_object(an_object())
    assert [ledger.verify_object(an_object(), how, "m.json") for how in ("checksum", "read back")] == [True, False]
    assert [entry.proved_by for entry in ledger.objects()] == ["checksum"]


def test_objects_are_listed_by_segment_and_market(ledger: Ledger) -> None:
    entries = [an_object(segment=s, symbol=symbol) for s in (2, 1) for symbol in ("ETH-USDT", "BTC-USDT")]
    for entry in entries:
        ledger.write_object(entry)
    assert [(e.segment, e.symbol) for e in ledger.objects()] == [
        (1, "BTC-USDT"), (1, "ETH-USDT"), (2, "BTC-USDT"), (2, "ETH-USDT"),
    ]  # fmt: skip
    assert [(e.segment, e.symbol) for e in ledger.objects(2)] == [(2, "BTC-USDT"), (2, "ETH-USDT")]


def test_a_conflict_is_remembered_once(ledger: Ledger) -> None:
    for detail in ("other bytes", "again"):
        ledger.record_conflict("s3://b", "okx/k.parquet", 1, detail)
    with writable(ledger.path).connect() as connection:
        assert [tuple(row) for row in connection.exec_driver_sql("SELECT * FROM conflicts")] == [
            ("s3://b", "okx/k.parquet", 1, "other bytes")
        ]


# records of removed segments


def epoch_row(ended_us: int | None, epoch: str = EPOCH) -> dict[str, object]:
    closed = (
        {"reason": "stop", "last_numbers": '[["a","trade",9]]'} if ended_us else {"reason": None, "last_numbers": None}
    )
    return {"epoch": epoch, "stream": "s", "exchange": "okx", "opened_us": 1, "ended_us": ended_us, **closed,
            "kind": "stream", "overlaps": "[]", "after": ""}  # fmt: skip


def numbered(key: str, value: int, **more: object) -> dict[str, object]:
    return {"epoch": EPOCH, "exchange": "okx", "symbol": "a", "feed": "trade", key: value, **more}


def a_range(first: int, last: int) -> dict[str, object]:
    return numbered("first", first, last=last, stored=last - first + 1, duplicates=0, conflicts=0, quarantined=0,
                    first_id=str(first), last_id=str(last), first_us=1, last_us=2)  # fmt: skip


def test_removal_begins_once_from_sealed_and_takes_the_records_with_it(ledger: Ledger) -> None:
    gap = numbered("number", 4, from_id="1", to_id="2", size=2, before_us=1, after_us=2, cause="sequence")
    loss = numbered("first", 5, last=6, count=2, start_us=1, end_us=2, cause="queue_full")
    frame = numbered("number", 7, received_us=3, reason="not_json", frame=b"\xff")
    records = {
        "ranges": [a_range(1, 3)],
        "gaps": [gap],
        "losses": [loss],
        "quarantine": [frame],
        "epochs": [epoch_row(9)],
    }
    ledger.open_segment(OPENED_US, path_of)
    assert ledger.begin_removal(1, 3, {name: [rows] for name, rows in records.items()}) is False, "it is open"
    assert [ledger.records(name) for name in records] == [[]] * 5
    ledger.move_segment(1, OPEN, SEALING)
    ledger.move_segment(1, SEALING, SEALED)
    assert [ledger.begin_removal(1, 3, {name: [rows] for name, rows in records.items()}) for _ in range(2)] == [
        True,
        False,
    ]
    assert {name: ledger.records(name) for name in records} == records
    assert [(s.state, s.rows) for s in ledger.segments()] == [(REMOVING, 3)]


@pytest.mark.parametrize("order", [(None, 9), (9, None), (9, 9)])
def test_an_epoch_over_many_segments_is_one_and_its_end_stands_whichever_comes_first(
    ledger: Ledger, order: tuple[int | None, ...]
) -> None:
    for ended_us in order:
        removed(ledger, {"epochs": [epoch_row(ended_us), epoch_row(None, OTHER)]})
    assert ledger.records("epochs") == [epoch_row(9), epoch_row(None, OTHER)]


def test_replays_of_many_segments_add_up(ledger: Ledger) -> None:
    replay = {"epoch": EPOCH, "symbol": "a", "feed": "trade", "first": 1, "last": 9}
    removed(ledger, {"replays": [{**replay, "times": 2}]})
    removed(ledger, {"replays": [{**replay, "times": 3}, {**replay, "first": 10, "last": 11, "times": 1}]})
    assert ledger.records("replays") == [
        {**replay, "times": 5},
        {**replay, "first": 10, "last": 11, "times": 1},
    ]


def test_ranges_of_one_epoch_from_many_segments_stand_beside_one_another(ledger: Ledger) -> None:
    removed(ledger, {"ranges": [a_range(1, 5)]})
    removed(ledger, {"ranges": [a_range(6, 9)]})
    assert ledger.records("ranges") == [a_range(1, 5), a_range(6, 9)]


@pytest.fixture
def quarantine(ledger: Ledger) -> Iterator[Ledger]:
    frames = [numbered("number", n, received_us=100 - n, reason="not_json", frame=b"x" * n) for n in (10, 20, 30)]
    removed(ledger, {"quarantine": frames})
    yield ledger


def test_the_oldest_frames_in_quarantine_are_let_go_until_the_bound_holds_and_their_rows_stay(
    quarantine: Ledger,
) -> None:
    assert quarantine.bound_quarantine(60) == 0
    assert quarantine.bound_quarantine(35) == 30
    held = [(record["number"], record["frame"], record["reason"]) for record in quarantine.records("quarantine")]
    assert held == [
        (10, b"x" * 10, "not_json"),
        (20, b"x" * 20, "not_json"),
        (30, b"", "not_json (frame let go)"),
    ]
    assert quarantine.bound_quarantine(35) == 0
    assert quarantine.bound_quarantine(0) == 30
    assert [record["frame"] for record in quarantine.records("quarantine")] == [b"", b"", b""]
    assert quarantine.bound_quarantine(0) == 0


def test_an_empty_quarantine_has_nothing_to_let_go(ledger: Ledger) -> None:
    assert ledger.bound_quarantine(0) == 0


# what was found out later


def _epoch(reason: str | None, last: int) -> dict[str, object]:
    ended = {"ended_us": OPENED_US + last, "last_numbers": f'[["btcusdt","trade",{last}]]'} if reason else {}
    return {
        "epoch": EPOCH, "stream": "binance-0", "exchange": "binance", "opened_us": OPENED_US, "ended_us": None,
        "reason": reason, "last_numbers": None, "kind": "stream", "overlaps": "[]", "after": "", **ended,
    }  # fmt: skip


@pytest.mark.parametrize("order", [("stop", "unclean_end"), ("unclean_end", "stop")])
def test_an_end_that_the_connection_said_stands_whatever_was_found_out(ledger: Ledger, order: tuple[str, str]) -> None:
    for reason in (None, *order):
        removed(ledger, {"epochs": [_epoch(reason, 9 if reason == "stop" else 5)]})
    (held,) = ledger.records("epochs")
    assert (held["reason"], held["ended_us"], held["last_numbers"]) == (
        "stop",
        OPENED_US + 9,
        '[["btcusdt","trade",9]]',
    )


@pytest.mark.parametrize("order", [(None, 4), (4, None)])
def test_a_loss_of_known_extent_takes_the_place_of_one_of_unknown(
    ledger: Ledger, order: tuple[int | None, int | None]
) -> None:
    for count in order:
        loss = {"epoch": EPOCH, "exchange": "binance", "symbol": "btcusdt", "feed": "trade", "first": 6,
                "last": 9 if count else 6, "count": count, "start_us": 1, "end_us": 2,
                "cause": "buffer_lost" if count else "unclean_end"}  # fmt: skip
        removed(ledger, {"losses": [loss]})
    (held,) = ledger.records("losses")
    assert (held["first"], held["last"], held["count"], held["cause"]) == (6, 9, 4, "buffer_lost")


def test_conflicts_are_listed_by_store_with_the_segment_whose_object_went_elsewhere(ledger: Ledger) -> None:
    ledger.record_conflict("local", "okx/a.parquet", 1, "other bytes")
    ledger.record_conflict("s3:b", "okx/a.parquet", 2, "other bytes")
    ledger.record_conflict("s3:b", "okx/b.parquet", 3, "other bytes")
    assert ledger.conflicts("s3:b") == {"okx/a.parquet": 2, "okx/b.parquet": 3}
    assert ledger.conflicts("s3:c") == {}


def test_an_object_in_two_stores_counts_once(ledger: Ledger) -> None:
    for store in ("local", "s3:b"):
        for symbol in ("BTC-USDT", "ETH-USDT"):
            entry = an_object(store=store, symbol=symbol)
            ledger.write_object(entry)
            if (store, symbol) != ("s3:b", "ETH-USDT"):
                ledger.verify_object(entry, "read back", "m.json")
    assert ledger.totals()[1:] == (2, 2 * an_object().rows)


def test_totals_are_the_same_remembered_or_counted_anew_and_what_is_gone_is_not_read_again(
    ledger: Ledger,
) -> None:
    states = OPEN, SEALING, SEALED, REMOVING, REMOVED

    def an_hour(state: str = OPEN) -> int:
        number = ledger.open_segment(1, relative_path).number
        for store in ("local", "s3:b"):
            entry = an_object(segment=number, store=store)
            ledger.write_object(entry)
            ledger.verify_object(entry, "read back", "m.json")
        assert ledger.move_segment(number, OPEN, state)
        return number

    assert ledger.totals() == (dict.fromkeys(states, 0), 0, 0)
    first, stays = an_hour(REMOVED), an_hour(SEALED)
    last, rows = an_hour(REMOVED), an_object().rows
    for _ in range(2):
        assert ledger.totals() == ({**dict.fromkeys(states, 0), SEALED: 1, REMOVED: 2}, 3, 3 * rows)
        assert ledger.totals() == Ledger(ledger.path).totals()
    with closing(sqlite3.connect(ledger.path)) as file, file:
        file.execute("UPDATE objects SET rows = rows + 1000 WHERE segment IN (?, ?)", (first, last))
    assert ledger.totals()[2] == 3 * rows + 1000, "of those below the first that is kept nothing is read"
    assert ledger.move_segment(stays, SEALED, REMOVED)
    an_hour()
    expected = {**dict.fromkeys(states, 0), OPEN: 1, REMOVED: 3}
    assert [ledger.totals()[:2] for _ in range(2)] == [(expected, 4)] * 2
    assert ledger.totals()[:2] == Ledger(ledger.path).totals()[:2]


# a ledger of years


@pytest.mark.parametrize(
    "question",
    [
        "SELECT * FROM checks WHERE feed = 'trade' AND kind = 'seam' AND verdict = 'unknowable' AND end_us >= 1",
        "SELECT * FROM gaps WHERE feed = 'trade' AND after_us >= 1",
        "SELECT * FROM repairs WHERE feed = 'trade' AND found_us >= 1",
        "SELECT * FROM epochs WHERE opened_us >= 1",
        "SELECT epoch FROM epochs WHERE ended_us IS NULL AND kind = 'stream'",
        "SELECT * FROM epochs WHERE stream = 's' AND opened_us > 1",
    ],
)
def test_what_is_asked_every_few_seconds_is_found_without_reading_what_is_old(ledger: Ledger, question: str) -> None:
    plan = query(ledger.path, f"EXPLAIN QUERY PLAN {question}")
    assert all("INDEX" in step[-1] for step in plan), plan


def test_of_the_other_connections_of_a_stream_only_those_after_the_one_without_an_end_are_read(ledger: Ledger) -> None:
    def named(number: int, reason: str | None) -> dict[str, object]:
        return {**_epoch(reason, number), "epoch": f"{number:032x}", "opened_us": OPENED_US + number}

    removed(ledger, {"epochs": [named(1, "stop"), named(2, None), named(3, "stop")]})
    read = read_ledger(ledger.path, epochs=[])
    assert [row["epoch"] for row in read.epochs] == [f"{2:032x}"]
    assert [row["epoch"] for row in read.neighbours] == [f"{3:032x}"]


def test_who_only_reads_waits_for_no_writer(ledger: Ledger) -> None:
    ledger.open_segment(OPENED_US, path_of)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE segments SET state = 'sealing'")
        assert [entry.state for entry in ledger.segments()] == [OPEN], "what is committed"
        assert (ledger.objects(), ledger.conflicts("s3://b"), ledger.records("epochs")) == ([], {}, [])
        assert ledger.totals() == ({OPEN: 1, SEALING: 0, SEALED: 0, REMOVING: 0, REMOVED: 0}, 0, 0)
        assert ledger.begun("okx", ["BTC-USDT"], 0, "ws") == []
