"""One segment: a numbered SQLite file that is filled, sealed, archived and removed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Select, func, select
from sqlalchemy.exc import DBAPIError

from app.errors import SegmentSealed
from app.model import Batch, Event
from app.store.engine import bare, begin_wal, classify, readonly, writable
from app.store.insert import Lookup, Outcomes, insert
from app.store.known import KnownRanges
from app.store.migrate import prepare, readable
from app.store.schema import ROWS, SEGMENT_RECORDS
from app.store.schema import segment as schema
from app.store.tallies import Counts

PAGE_SIZE = 16384
#: Bytes taken off a removed file at a time, so that no single step stalls the disk.
TRUNCATE_STEP_BYTES = 64 * 1024 * 1024

#: Rows are read into memory so many, or so many bytes of text, at a time.
CHUNK_ROWS = 2_000
CHUNK_BYTES = 256 * 1024
#: The same of books, where each time is a query of its own.
BOOKS_BYTES = 1024 * 1024

#: exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch
ObjectRow = tuple[str, int, int | None, str, str]


class Holding(NamedTuple):
    """Rows of one (exchange, symbol, data type) in a segment."""

    exchange: str
    symbol: str
    data_type: str
    rows: int


def relative_path(number: int, opened_us: int) -> str:
    """Where the file of a segment lies below the segments' root: `YYYY-MM-DD/HHMM-number.db`, UTC."""
    opened = datetime.fromtimestamp(opened_us / 1e6, UTC)
    return f"{opened:%Y-%m-%d}/{opened:%H%M}-{number}.db"


class Segment:
    """A segment that may be written: the open one. One writer at a time; every insert checks that it is not sealed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine: Engine = writable(path, page_size=PAGE_SIZE)
        self._held: Connection | None = None
        self._file: os.stat_result

    @classmethod
    def create(cls, path: Path, number: int, data_directory: str, opened_us: int) -> Segment:
        """Make the file, or finish making it after a crash. The same call again changes nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        segment = cls(path)
        begin_wal(segment.engine)
        meta = {
            "segment": str(number),
            "data_directory": data_directory,
            "opened_us": str(opened_us),
            "sealed_us": "",
        }
        with segment.engine.begin() as connection:
            prepare(connection, schema, path, meta)
        return segment

    @contextmanager
    def held(self) -> Iterator[None]:
        """One connection for every `store` inside. Without it, or where none can be had, each has its own, and SQLite moves the
        log into the file whenever the last one is closed."""
        with ExitStack() as stack:
            with suppress(DBAPIError, OSError):  # `store` says why
                self._held = stack.enter_context(self.engine.connect())
                self._file = os.stat(self.path)
            try:
                yield
            finally:
                self._held = None

    def _begin(self) -> AbstractContextManager[Connection]:
        if self._held is None:
            return self.engine.begin()
        # Whoever slept may hold a file that was set aside meanwhile: nobody would look for rows in that.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.path), self._file):
                return _transaction(self._held)
        raise SegmentSealed(self.path.name)

    def store(
        self, batches: Sequence[Batch], known: KnownRanges, twins: Lookup | None, outcomes: Outcomes | None = None
    ) -> Counts:
        """Rows, records and ranges of `batches`, in one transaction. `known` covers their epochs in every other file.
        `outcomes` is told what became of them, to be believed when this has returned.

        Raises: SegmentSealed; sqlalchemy.exc.DBAPIError as app/store/insert.py says.
        """
        with self._begin() as connection:
            if _meta(connection, "sealed_us"):
                raise SegmentSealed(self.path.name)
            known.renew(connection, sorted({batch.epoch for batch in batches}))
            return insert(connection, batches, known, twins, outcomes)

    def seal(self, now_us: int) -> None:
        """No row comes in after this. The same call again changes nothing."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE meta SET value = ? WHERE key = 'sealed_us' AND value = ''", (str(now_us),)
            )

    def settle(self) -> bool:
        """Move the log into the file and drop it, so that the file alone is the segment. False while a reader is in."""
        try:
            with bare(self.engine) as cursor:
                cursor.execute("PRAGMA busy_timeout=0")  # a reader is not waited for: the next run comes soon
                busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if busy:
                    return False
                (mode,) = cursor.execute("PRAGMA journal_mode=DELETE").fetchone()
                return bool(mode == "delete")
        except DBAPIError as error:
            if classify(error) == "locked":
                return False
            raise


@contextmanager
def _transaction(connection: Connection) -> Iterator[Connection]:
    with connection.begin():
        yield connection


class SealedSegment:
    """A sealed segment, read without locks once it is `settled` (its log is in the file)."""

    def __init__(self, path: Path, *, settled: bool = True) -> None:
        self.path = path
        self.engine = readonly(path, immutable=settled)

    def meta(self) -> dict[str, str]:
        """Everything the file says about itself. Raises: CollectorError when its schema is of a newer version."""
        with self.engine.connect() as connection:
            meta = {key: value for key, value in connection.exec_driver_sql("SELECT key, value FROM meta")}
        readable(self.path, meta)
        return meta

    @cached_property
    def opened_us(self) -> int:
        """When it was opened, as the file says; read once. Raises: as `meta`."""
        return int(self.meta()["opened_us"])

    def holdings(self) -> list[Holding]:
        """Rows per (exchange, symbol, data type), counted now."""
        found = []
        with self.engine.connect() as connection:
            for data_type, table in ROWS.items():
                query = select(table.c.exchange, table.c.symbol, func.count()).group_by(
                    table.c.exchange, table.c.symbol
                )
                found += [Holding(e, s, data_type, rows) for e, s, rows in connection.execute(query)]
        return sorted(found)

    def rows(self, exchange: str, symbol: str, data_type: str) -> Iterator[list[ObjectRow]]:
        """The rows of one object in the order they were stored, at most CHUNK_ROWS or CHUNK_BYTES (and a row) at a time."""
        table = ROWS[data_type]
        # The ids of one market come off the unique index alone, then its rows are looked up in order: another market's
        # rows are never read, and nothing but ids is sorted.
        query = (
            "SELECT exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch"
            f" FROM {table.name} WHERE id IN (SELECT id FROM {table.name} WHERE exchange = ? AND symbol = ?) ORDER BY id"
        )
        with bare(self.engine) as cursor:
            chunk: list[ObjectRow] = []
            size = 0
            for row in cursor.execute(query, (exchange, symbol)):
                chunk.append(row)
                size += len(row[3])
                if len(chunk) == CHUNK_ROWS or size >= CHUNK_BYTES:
                    yield chunk
                    chunk, size = [], 0
            if chunk:
                yield chunk

    def book_rows(self, after: int) -> list[tuple[int, str, str, ObjectRow]]:
        """(id, exchange, symbol, row) of every market's order book rows past id `after`, in the order they were stored.

        At most CHUNK_ROWS or BOOKS_BYTES (and a row). The segment may still be open: what is committed is seen.
        """
        query = (
            "SELECT id, exchange, symbol, exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch"
            f" FROM orderbooks WHERE id > ? ORDER BY id LIMIT {CHUNK_ROWS}"
        )
        found: list[tuple[int, str, str, ObjectRow]] = []
        size = 0
        with self.engine.connect() as connection:
            for row in connection.execution_options(yield_per=100).exec_driver_sql(query, (after,)):
                found.append((row[0], row[1], row[2], tuple(row[3:])))
                size += len(row.data)
                if size >= BOOKS_BYTES:
                    break
        return found

    def latest_book_rows(self, exchange: str, symbol: str, most: int) -> Iterator[list[ObjectRow]]:
        """The last `most` order book rows of a market, the newest first, some at a time; whoever has enough stops."""
        query = (
            "SELECT exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch FROM orderbooks WHERE id IN"
            " (SELECT id FROM orderbooks WHERE exchange = ? AND symbol = ? ORDER BY id DESC LIMIT ?) ORDER BY id DESC"
        )
        with self.engine.connect() as connection:
            found = connection.execution_options(yield_per=100).exec_driver_sql(query, (exchange, symbol, most))
            for rows in found.partitions():
                yield [tuple(row) for row in rows]

    def records(self, name: str, **where: str) -> list[dict[str, object]]:
        """Rows of one of the record tables as dictionaries; without what the version of this file did not have."""
        with self.engine.connect() as connection:
            query = as_written(connection, name)
            found = connection.execute(query.filter_by(**where)) if query is not None else ()
            return [dict(row._mapping) for row in found]

    def count(self, name: str, **where: str) -> int:
        """How many rows `records` would return."""
        query = select(func.count()).select_from(SEGMENT_RECORDS[name]).filter_by(**where)
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def chunks(self, name: str, size: int) -> Iterator[list[dict[str, object]]]:
        """The rows of `records`, so many at a time: quarantined frames may be large and many."""
        with self.engine.connect() as connection:
            query = as_written(connection, name)
            if query is None:
                return
            for rows in connection.execution_options(yield_per=size).execute(query).partitions():
                yield [dict(row._mapping) for row in rows]

    def load_known(self, known: KnownRanges, epochs: list[str]) -> None:
        """Add what this segment holds of `epochs` to `known`."""
        with self.engine.connect() as connection:
            known.load(connection, epochs)

    def twins(self, exchange: str, feed: str, events: Sequence[Event]) -> dict[tuple[str, str], str]:
        """Those of `events` whose identity stands in this segment: (symbol, id) -> the bytes stored there."""
        table = ROWS[feed]
        by_symbol: dict[str, list[str]] = {}
        for event in events:
            by_symbol.setdefault(event.symbol, []).append(event.sequence_id)
        held: dict[tuple[str, str], str] = {}
        with self.engine.connect() as connection:
            for symbol, ids in by_symbol.items():
                for start in range(0, len(ids), 500):
                    query = select(table.c.exchange_sequence_id, table.c.data).where(
                        table.c.exchange == exchange,
                        table.c.symbol == symbol,
                        table.c.exchange_sequence_id.in_(ids[start : start + 500]),
                    )
                    held.update(((symbol, identity), data) for identity, data in connection.execute(query))
        return held


def as_written(connection: Connection, name: str) -> Select[Any] | None:
    """A query of the columns that this file has of a record table; None where it has no such table."""
    table = SEGMENT_RECORDS[name]
    held = {row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({name})")}
    return select(*(column for column in table.c if column.name in held)) if held else None


def remove_file(path: Path) -> None:
    """Truncate in steps, then unlink: one unlink of a big file stalls every other writer of the disk."""
    for leftover in (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")):
        leftover.unlink(missing_ok=True)
    if not path.exists():
        return
    size = path.stat().st_size
    while size > TRUNCATE_STEP_BYTES:
        size -= TRUNCATE_STEP_BYTES
        os.truncate(path, size)
    path.unlink()


def _meta(connection: Connection, key: str) -> str:
    return str(connection.exec_driver_sql("SELECT value FROM meta WHERE key = ?", (key,)).scalar_one())
