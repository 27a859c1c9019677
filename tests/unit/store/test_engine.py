"""Real SQLite files: how they are opened, and what an error of theirs means."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError

from app.store import engine
from app.store.engine import begin_wal, classify, readonly, writable
from app.store.tallies import Counts
from tests.support.batches import batch
from tests.support.batches import event as unit
from tests.support.segments import identities, opened, stored


def pragma(made: Engine, name: str) -> object:
    with made.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def failure(act: Callable[[], object]) -> Exception:
    with pytest.raises((DBAPIError, OverflowError, UnicodeError, OSError)) as raised:
        act()
    return raised.value


def test_a_file_that_may_be_written_syncs_every_commit_and_keeps_its_log(tmp_path: Path) -> None:
    made = writable(tmp_path / "a.db", page_size=16384)
    begin_wal(made)
    pragmas = ("journal_mode", "synchronous", "page_size", "busy_timeout", "temp_store")
    assert [pragma(made, name) for name in pragmas] == ["wal", 2, 16384, engine.BUSY_TIMEOUT_MS, 2]
    assert pragma(writable(tmp_path / "a.db"), "journal_mode") == "wal", "the file remembers"


def test_no_connection_stays_behind_a_block(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    made = writable(path)
    begin_wal(made)
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",), "nobody else is connected"
    other.close()


def test_a_transaction_takes_the_write_lock_at_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 20)
    made = writable(tmp_path / "a.db")
    begin_wal(made)
    with made.begin():
        second = failure(lambda: made.connect().begin())
        assert classify(second) == "locked"


def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    made = writable(tmp_path / "a.db")
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    with pytest.raises(ZeroDivisionError), made.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        raise ZeroDivisionError
    with made.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0


@pytest.mark.parametrize("immutable", [False, True])
def test_a_reader_cannot_write_and_reads_odd_names(tmp_path: Path, immutable: bool) -> None:
    path = tmp_path / "odd name?#%.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (5)")
    connection.close()
    reader = readonly(path, immutable=immutable)
    with reader.connect() as found:
        assert found.exec_driver_sql("SELECT x FROM t").scalar() == 5
        assert classify(failure(lambda: found.exec_driver_sql("INSERT INTO t VALUES (6)"))) == "io"


def test_a_file_that_is_not_there_is_not_made_by_a_reader(tmp_path: Path) -> None:
    assert classify(failure(lambda: readonly(tmp_path / "none.db").connect())) == "io"
    assert not (tmp_path / "none.db").exists()


def test_a_directory_that_is_not_there_is_an_io_error(tmp_path: Path) -> None:
    assert classify(failure(lambda: writable(tmp_path / "none" / "a.db").connect())) == "io"


def test_a_full_file_is_full_and_nothing_of_the_claim_is_stored_and_later_all_of_it(tmp_path: Path) -> None:
    segment = opened(tmp_path)
    stored(segment, batch(1, [unit(1)]))
    pages: list[int] = [1]

    @event.listens_for(segment.engine, "connect")
    def bound(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages[0]}")  # SQLite: never below what the file has

    claim = batch(2, [unit(n, data="x" * 3000) for n in range(2, 300)])
    assert classify(failure(lambda: stored(segment, claim))) == "full"
    assert identities(segment.path) == ["1"]
    pages[0] = 2**30
    assert stored(segment, claim) == Counts(stored=298)


def test_a_locked_file_is_locked_and_nothing_of_the_claim_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 20)
    segment = opened(tmp_path)
    holder = sqlite3.connect(segment.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert classify(failure(lambda: stored(segment, batch(1, [unit(1)])))) == "locked"
    holder.execute("COMMIT")
    holder.close()
    assert stored(segment, batch(1, [unit(1)])) == Counts(stored=1)


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str, object], object]:
    made = writable(tmp_path / "t.db")
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT NOT NULL UNIQUE)")
        connection.exec_driver_sql("INSERT INTO t (x) VALUES ('taken')")

    def insert(sql: str, value: object) -> object:
        with made.begin() as connection:
            return connection.exec_driver_sql(sql, (value,))

    return insert


@pytest.mark.parametrize(
    ("sql", "value", "kind"),
    [
        ("INSERT INTO t (x) VALUES (?)", None, "constraint"),
        ("INSERT INTO t (x) VALUES (?)", "taken", "constraint"),
        ("INSERT INTO t (x) VALUES (?)", 2**63, "constraint"),
        ("INSERT INTO t (x) VALUES (?)", "\ud800", "constraint"),
        ("INSERT INTO t (x) VALUES (?)", object(), "constraint"),
        ("INSERT INTO t (id, x) VALUES (?, 'x')", "no number", "constraint"),
        ("INSERT INTO t (x) VALUES (zeroblob(?))", 2**31 - 1, "constraint"),
        ("INSERT INTO nowhere VALUES (?)", 1, "other"),
        ("this is no SQL ?", 1, "other"),
    ],
)
def test_a_refused_value_is_told_from_every_other_error(
    table: Callable[[str, object], object], sql: str, value: object, kind: str
) -> None:
    assert classify(failure(lambda: table(sql, value))) == kind


def test_errors_of_the_system_are_full_or_io_and_the_unknown_is_other() -> None:
    assert classify(OSError(errno.ENOSPC, "No space left on device")) == "full"
    assert classify(OSError(errno.EROFS, "Read-only file system")) == "io"
    assert classify(RuntimeError("?")) == "other"


def test_a_file_that_is_no_database_and_a_text_that_is_none_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database " * 1000)
    assert classify(failure(lambda: pragma(writable(path), "journal_mode"))) == "damaged"
    with writable(tmp_path / "b.db").connect() as found:
        assert classify(failure(lambda: found.exec_driver_sql("SELECT CAST(x'ff' AS TEXT)").all())) == "damaged"
