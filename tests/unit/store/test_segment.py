"""One segment file: made, filled, sealed, settled, read without locks, removed."""

from __future__ import annotations

import sqlite3
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from app.errors import CollectorError, SegmentSealed
from app.model import ORDERBOOK, TRADE
from app.store import engine
from app.store import segment as module
from app.store.segment import Holding, SealedSegment, Segment, relative_path, remove_file
from app.store.tallies import Counts
from tests.support.batches import EPOCH, OPENED_US, batch, event, undecoded
from tests.support.segments import DIRECTORY_ID, identities, opened, query, sealed, stored


def beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir())


def test_a_segment_lies_under_its_day_and_minute_and_number() -> None:
    assert relative_path(17, OPENED_US) == "2026-03-01/0000-17.db"
    assert relative_path(3, OPENED_US + 86_399_999_999) == "2026-03-01/2359-3.db"


def test_making_a_segment_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "2026-03-01" / "0000-1.db"
    first = Segment.create(path, 1, DIRECTORY_ID, OPENED_US)
    stored(first, batch(1, [event(1)]))
    again = Segment.create(path, 99, "another directory", 5)
    assert identities(again.path) == ["1"]
    assert dict(query(path, "SELECT key, value FROM meta")) == {
        "schema_version": "3",
        "segment": "1",
        "data_directory": DIRECTORY_ID,
        "opened_us": str(OPENED_US),
        "sealed_us": "",
    }


def test_making_a_segment_is_finished_after_a_crash_that_left_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "1.db").touch()
    assert stored(opened(tmp_path), batch(1, [event(1)])) == Counts(stored=1)


def test_the_tables_are_the_customers_and_epoch(tmp_path: Path) -> None:
    path = opened(tmp_path).path
    for table in ("orderbooks", "trades"):
        columns = [
            (name, type, notnull, pk) for _, name, type, notnull, _, pk in query(path, f"PRAGMA table_info({table})")
        ]
        assert columns == [
            ("id", "INTEGER", 1, 1),
            ("exchange", "TEXT", 1, 0),
            ("symbol", "TEXT", 1, 0),
            ("exchange_sequence_id", "TEXT", 1, 0),
            ("timestamp_collector", "BIGINT", 1, 0),
            ("timestamp_exchange", "BIGINT", 0, 0),
            ("data", "TEXT", 1, 0),
            ("epoch", "TEXT", 1, 0),
        ]
        ((sql,),) = query(path, "SELECT sql FROM sqlite_master WHERE name = ?", [table])
        assert "AUTOINCREMENT" in sql
        assert "UNIQUE (exchange, symbol, exchange_sequence_id)" in sql


def test_a_segment_of_a_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    made = opened(tmp_path)
    with made.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '7' WHERE key = 'schema_version'")
    with pytest.raises(CollectorError, match="schema 7; this version reads 1 to 3"):
        sealed(made).meta()


# sealing


def test_a_sealed_segment_refuses_every_row_and_holds_what_it_held(tmp_path: Path) -> None:
    made = opened(tmp_path)
    stored(made, batch(1, [event(1)]))
    late = Segment(made.path)  # another flush that has not noticed
    made.seal(OPENED_US + 5)
    for writer in (made, late):
        with pytest.raises(SegmentSealed, match=r"1\.db"):
            stored(writer, batch(2, [event(2)]))
    assert identities(made.path) == ["1"]
    assert made.settle()
    with pytest.raises(SegmentSealed):
        stored(late, batch(2, [event(2)]))


def test_sealing_and_settling_again_change_nothing(tmp_path: Path) -> None:
    made = opened(tmp_path)
    stored(made, batch(1, [event(1)]))
    made.seal(OPENED_US + 5)
    made.seal(OPENED_US + 6)
    assert [made.settle(), made.settle()] == [True, True]
    content = made.path.read_bytes()
    again = Segment.create(made.path, 1, DIRECTORY_ID, OPENED_US)  # what a run after a crash does
    again.seal(OPENED_US + 7)
    assert again.settle()
    found = SealedSegment(made.path)
    assert found.meta()["sealed_us"] == str(OPENED_US + 5)
    assert list(chain(*found.rows("binance", "btcusdt", TRADE))) == [("1", OPENED_US + 1, None, '{"t":1}', EPOCH)]
    assert len(content) == made.path.stat().st_size


def test_a_settled_segment_is_one_file_with_everything_in_it(tmp_path: Path) -> None:
    made = opened(tmp_path)
    stored(made, batch(1, [event(n) for n in range(1, 500)]))
    with sqlite3.connect(made.path) as reader:  # keeps the log from being removed at the writer's close
        reader.execute("SELECT count(*) FROM trades").fetchone()
        stored(made, batch(2, [event(n) for n in range(500, 900)]))
        assert "1.db-wal" in beside(made.path)
    reader.close()
    sealed(made)
    assert beside(made.path) == ["1.db"]
    copy = tmp_path / "elsewhere" / "copy.db"
    copy.parent.mkdir()
    copy.write_bytes(made.path.read_bytes())
    assert identities(copy) == [str(n) for n in range(1, 900)]


def test_settling_waits_for_readers_to_leave_and_loses_nothing_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    made = opened(tmp_path)
    stored(made, batch(1, [event(1)]))
    reader = sqlite3.connect(made.path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM trades").fetchone() == (1,)
    stored(made, batch(2, [event(2)]))
    made.seal(OPENED_US + 5)
    assert made.settle() is False, "a reader stands at an older state of the file"
    reader.execute("COMMIT")
    assert made.settle() is False, "a reader is connected"
    assert identities(made.path) == ["1", "2"]
    reader.close()
    assert made.settle() is True
    assert identities(made.path) == ["1", "2"]


# reading


def test_a_settled_segment_is_read_without_locks_and_cannot_be_written(tmp_path: Path) -> None:
    made = opened(tmp_path)
    stored(made, batch(1, [event(1), undecoded(1)]))
    found = sealed(made)
    made.path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        with sqlite3.connect(made.path, isolation_level=None) as writer:
            try:
                writer.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                pass  # not root: the file is read-only even for the one who would lock it
            assert found.holdings() == [Holding("binance", "btcusdt", TRADE, 1)]
        writer.close()
        assert beside(made.path) == ["1.db"]
    finally:
        tmp_path.chmod(0o700)
    with pytest.raises(DBAPIError, match=r"readonly|read-only|query_only"), found.engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM trades")
    assert identities(made.path) == ["1"]


def test_holdings_are_the_rows_of_every_market_and_feed(tmp_path: Path) -> None:
    made = opened(tmp_path)
    stored(made, batch(1, [event(1), event(2), event(1, feed=ORDERBOOK), event(1, symbol="ethusdt")]))
    stored(made, batch(1, [event(9, symbol="BTC-USDT")], epoch="0b" * 16, stream="okx-0-trade"))
    assert sealed(made).holdings() == [
        Holding("binance", "btcusdt", ORDERBOOK, 1),
        Holding("binance", "btcusdt", TRADE, 2),
        Holding("binance", "ethusdt", TRADE, 1),
        Holding("okx", "BTC-USDT", TRADE, 1),
    ]


def test_rows_come_in_the_order_they_were_stored_in_chunks_and_without_other_markets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    made = opened(tmp_path)
    order = [5, 3, 9, 1, 7, 2, 8]
    for n, identity in enumerate(order, 1):
        stored(made, batch(n, [event(n, str(identity), exchange_us=n), event(n, str(identity), symbol="ethusdt")]))
    chunks = list(sealed(made).rows("binance", "btcusdt", TRADE))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert list(chain(*chunks)) == [
        (str(identity), OPENED_US + n, n, f'{{"t":{identity}}}', EPOCH) for n, identity in enumerate(order, 1)
    ]
    assert list(sealed(made).rows("binance", "nobody", TRADE)) == []


def test_a_chunk_of_large_rows_ends_before_it_holds_much_more_than_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    made = opened(tmp_path)
    sizes = [400, 400, 400, 5000, 10, 10]
    stored(made, batch(1, [event(n, data="x" * size) for n, size in enumerate(sizes, 1)]))
    chunks = list(sealed(made).rows("binance", "btcusdt", TRADE))
    assert [[len(row[3]) for row in chunk] for chunk in chunks] == [[400, 400, 400], [5000], [10, 10]]


def test_records_are_read_by_name_and_by_what_they_are_of(tmp_path: Path) -> None:
    made = opened(tmp_path)
    stored(made, batch(1, [event(1), event(1, symbol="ethusdt"), undecoded(1)]))
    found = sealed(made)
    expected = {"epoch": EPOCH, "exchange": "binance", "symbol": "ethusdt", "feed": TRADE, "first": 1, "last": 1,
                "stored": 1, "duplicates": 0, "conflicts": 0, "quarantined": 0, "first_id": "1", "last_id": "1",
                "first_us": OPENED_US + 1, "last_us": OPENED_US + 1}  # fmt: skip
    assert found.records("ranges", symbol="ethusdt") == [expected]
    assert [record["symbol"] for record in found.records("ranges")] == ["?", "btcusdt", "ethusdt"]
    assert [record["frame"] for record in found.records("quarantine")] == [b"\xff\x00"]
    assert [record["epoch"] for record in found.records("epochs")] == [EPOCH]


def test_twins_are_found_with_the_bytes_that_stand_there(tmp_path: Path) -> None:
    made = opened(tmp_path)
    stored(
        made,
        batch(1, [event(1, "7", data="a"), event(1, "7", symbol="ethusdt", data="b"), event(1, "7", feed=ORDERBOOK)]),
    )
    found = sealed(made)
    wanted = [event(5, "7"), event(6, "8"), event(7, "7", symbol="ethusdt"), event(8, "7", symbol="xrpusdt")]
    assert found.twins("binance", TRADE, wanted) == {("btcusdt", "7"): "a", ("ethusdt", "7"): "b"}
    assert found.twins("okx", TRADE, wanted) == {}
    assert found.twins("binance", TRADE, []) == {}


# removing


def test_a_removed_file_is_gone_with_everything_beside_it_and_may_be_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.db"
    for name in ("1.db", "1.db-wal", "1.db-shm", "1.db-journal", "11.db", "1.db.keep"):
        (tmp_path / name).write_bytes(b"x" * 1000)
    sizes: list[int] = []
    truncate = module.os.truncate
    monkeypatch.setattr(module, "TRUNCATE_STEP_BYTES", 300)
    monkeypatch.setattr(module.os, "truncate", lambda path, size: (sizes.append(size), truncate(path, size)))
    remove_file(path)
    assert sizes == [700, 400, 100]
    assert beside(path) == ["1.db.keep", "11.db"]
    remove_file(path)
    assert beside(path) == ["1.db.keep", "11.db"]


def test_a_run_that_holds_a_file_which_was_set_aside_stores_nothing_in_it(tmp_path: Path) -> None:
    made = opened(tmp_path)
    with made.held():
        stored(made, batch(1, [event(1)]))
        aside = made.path.with_suffix(".corrupt")
        for end in ("", "-wal"):
            Path(f"{made.path}{end}").rename(f"{aside}{end}")
        with pytest.raises(SegmentSealed):
            stored(made, batch(2, [event(2)]))
        opened(tmp_path)
        with pytest.raises(SegmentSealed):
            stored(made, batch(2, [event(2)]))
    assert identities(aside) == ["1"]
