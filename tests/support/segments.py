"""A segment in a directory of a test, and what it says about itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.model import Batch
from app.store.engine import readonly
from app.store.insert import Lookup
from app.store.known import KnownRanges
from app.store.segment import SealedSegment, Segment
from app.store.tallies import Counts
from tests.support.batches import OPENED_US

DIRECTORY_ID = "d0" * 16


def opened(directory: Path, number: int = 1) -> Segment:
    """Segment `number`, made if need be."""
    return Segment.create(directory / f"{number}.db", number, DIRECTORY_ID, OPENED_US)


def stored(segment: Segment, *batches: Batch, known: KnownRanges | None = None, twins: Lookup | None = None) -> Counts:
    """What one claim of `batches` came to."""
    return segment.store(batches, known or KnownRanges(), twins)


def sealed(segment: Segment, now_us: int = OPENED_US + 1) -> SealedSegment:
    """The segment sealed and settled."""
    segment.seal(now_us)
    assert segment.settle()
    return SealedSegment(segment.path)


def query(path: Path, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Rows of an SQLite file, by a reader of its own."""
    engine = readonly(path)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql, tuple(parameters))]


def identities(path: Path, table: str = "trades") -> list[str]:
    """exchange_sequence_id of every row, in the order they were stored."""
    return [identity for (identity,) in query(path, f"SELECT exchange_sequence_id FROM {table} ORDER BY id")]


def ranges(path: Path) -> list[tuple[int, int, int, int, int, int]]:
    """first, last, stored, duplicates, conflicts, quarantined of every range."""
    sql = (
        "SELECT first, last, stored, duplicates, conflicts, quarantined FROM ranges ORDER BY epoch, symbol, feed, first"
    )
    return [(a, b, c, d, e, f) for a, b, c, d, e, f in query(path, sql)]


def balance(path: Path) -> None:
    """Every number of every range has exactly one outcome, and every outcome that leaves a row has left one."""
    found = ranges(path)
    for first, last, kept, duplicates, conflicts, quarantined in found:
        assert last - first + 1 == kept + duplicates + quarantined
        assert conflicts <= kept
    rows = sum(count for table in ("orderbooks", "trades") for (count,) in query(path, f"SELECT count(*) FROM {table}"))
    assert sum(row[2] for row in found) == rows
    assert sum(row[5] for row in found) == query(path, "SELECT count(*) FROM quarantine")[0][0]


def covered(path: Path) -> dict[tuple[str, str, str], set[int]]:
    """Numbers in ranges, by (epoch, symbol, feed)."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for epoch, symbol, feed, first, last in query(path, "SELECT epoch, symbol, feed, first, last FROM ranges"):
        found.setdefault((epoch, symbol, feed), set()).update(range(first, last + 1))
    return found


def numbers(batches: Iterable[Batch]) -> dict[tuple[str, str, str], set[int]]:
    """The same of batches."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for batch in batches:
        for r in batch.ranges:
            found.setdefault((batch.epoch, r.symbol, r.feed), set()).update(range(r.first, r.last + 1))
    return found
