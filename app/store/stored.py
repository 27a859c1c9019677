"""What has been stored, wherever it is: the record tables of the open segment, the sealed ones and the ledger as one.

Read-only, file by file, never a file held open: a reader that stays would keep the flush from sealing. Segments are read
before the ledger, the way records travel, so that one which is removed meanwhile is seen at least once; what is seen
twice is told by its key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable, Select, select, text
from sqlalchemy.exc import DatabaseError

from app.store.engine import readonly
from app.store.ledger import OPEN, SEALED, SEALING, Ledger
from app.store.schema import ROWS, SEGMENT_RECORDS
from app.store.segment import as_written

Row = dict[str, Any]
_Query = Callable[[Connection], Executable | None]
#: SQLite's bound on parameters is higher.
_CHUNK = 500


class Stored:
    """One data directory. Every answer is what was committed when it was read."""

    def __init__(self, ledger: Ledger, segments_root: Path) -> None:
        self._ledger, self._root = ledger, segments_root

    def records(
        self, name: str, *, since: tuple[str, int] | None = None, files: str = "all", **where: str
    ) -> list[Row]:
        """Every row of a record table that has these values, each once; without what an older file did not have.

        `since`: a column of time, and from when on. `files`: only `kept` segments, or only what is `archived`, of `all`.

        A row of `epochs` may stand in several segments: it is the one with an end, and never of kind `finding` where
        another says what the epoch is.
        """
        column, since_us = since or ("", 0)
        later = [SEGMENT_RECORDS[name].c[column] >= since_us] if since else []
        return self._united(name, lambda query: query.filter_by(**where).where(*later), files)

    def ranges(self, epochs: Collection[str], symbols: Collection[str] | None = None) -> list[Row]:
        """The ranges of these epochs, of `symbols` where they are given; those of one (epoch, symbol, feed) in ascending
        order of their numbers."""
        found = self._of_epochs("ranges", epochs, symbols)
        return sorted(found, key=lambda row: (row["epoch"], row["symbol"], row["feed"], row["first"]))

    def gaps(self, epochs: Collection[str]) -> list[Row]:
        """The gaps that these epochs showed."""
        return self._of_epochs("gaps", epochs)

    def _of_epochs(self, name: str, epochs: Collection[str], symbols: Collection[str] | None = None) -> list[Row]:
        table = SEGMENT_RECORDS[name]
        also = [table.c.symbol.in_(sorted(symbols))] if symbols is not None else []
        found: list[Row] = []
        for part in _chunks(epochs):
            of_these = _among(table.c.epoch, part)
            found += self._united(name, lambda query, of_these=of_these: of_these(query).where(*also))  # type: ignore[misc]
        return found

    def present(self, *, since_us: int | None = None) -> set[tuple[str, str, str]]:
        """(epoch, symbol, feed) of everything in the kept segments; with `since_us` also of all epochs in the ledger
        that were opened from then on."""
        table, epochs = SEGMENT_RECORDS["ranges"], SEGMENT_RECORDS["epochs"]
        query = select(table.c.epoch, table.c.symbol, table.c.feed).distinct()
        found = {(row[0], row[1], row[2]) for rows in self._kept(lambda c: query) for row in rows}
        if since_us is not None:
            recent = query.where(table.c.epoch.in_(select(epochs.c.epoch).where(epochs.c.opened_us >= since_us)))
            found |= {(row[0], row[1], row[2]) for row in self._archived(lambda c: recent)}
        return found

    def trades(self, exchange: str, symbol: str, ids: Collection[str]) -> dict[str, str]:
        """Those trades of the kept segments that bear one of `ids`: identity -> text. By the unique index."""
        table = ROWS["trade"]
        query = select(table.c.exchange_sequence_id, table.c.data).filter_by(exchange=exchange, symbol=symbol)
        found: dict[str, str] = {}
        for part in _chunks(ids):
            narrowed = _among(table.c.exchange_sequence_id, part)(query)
            for rows in self._kept(lambda c, narrowed=narrowed: narrowed):  # type: ignore[misc]
                found.update((row[0], row[1]) for row in rows)
        return found

    def counted_trades(self, exchange: str, symbol: str, runs: Iterable[tuple[int, int]]) -> dict[str, str]:
        """Those trades of the kept segments whose identity is a number of one of `runs` (first, last): identity -> text.

        Numbers of as many digits are in the order of their text, so that the unique index finds them.
        """
        ends = [
            (str(max(first, 10 ** (digits - 1))), str(min(last, 10**digits - 1)))
            for first, last in runs
            for digits in range(len(str(first)), len(str(last)) + 1)
        ]
        found: dict[str, str] = {}
        for start in range(0, len(ends), _CHUNK):
            part = ends[start : start + _CHUNK]
            values = ", ".join(f"(:low{n}, :high{n})" for n in range(len(part)))
            # CROSS: each run is looked up in the index, and not each row compared with the runs.
            query = text(
                f"WITH runs (low, high) AS (VALUES {values}) SELECT t.exchange_sequence_id, t.data"
                f" FROM runs CROSS JOIN {ROWS['trade'].name} AS t WHERE t.exchange = :exchange AND t.symbol = :symbol"
                " AND t.exchange_sequence_id BETWEEN low AND high AND length(t.exchange_sequence_id) = length(low)"
            ).bindparams(
                exchange=exchange,
                symbol=symbol,
                **{f"{end}{n}": pair[i] for n, pair in enumerate(part) for i, end in enumerate(("low", "high"))},
            )
            for rows in self._kept(lambda c, query=query: query):  # type: ignore[misc]
                found.update((row[0], row[1]) for row in rows)
        return found

    def _united(self, name: str, narrowed: Callable[[Select[Any]], Select[Any]], files: str = "all") -> list[Row]:
        key = [column.name for column in SEGMENT_RECORDS[name].primary_key]

        def query(connection: Connection) -> Select[Any] | None:
            written = as_written(connection, name)
            return None if written is None else narrowed(written)

        found: dict[tuple[Any, ...], Row] = {}
        kept = [*self._kept(query)] if files != "archived" else []
        archived = [self._archived(query)] if files != "kept" else []
        for rows in kept + archived:
            for record in (dict(row._mapping) for row in rows):
                at = tuple(record[column] for column in key)
                found[at] = _whole(found[at], record) if name == "epochs" and at in found else record
        return list(found.values())

    def _kept(self, query: _Query) -> Iterator[list[Any]]:
        """The rows of each kept segment, the newest first; of one that is removed meanwhile, none: the ledger has them."""
        for entry in reversed(self._ledger.segments(OPEN, SEALING, SEALED)):
            try:
                with readonly(self._root / entry.path, immutable=entry.state == SEALED).connect() as connection:
                    wanted = query(connection)
                    rows = list(connection.execute(wanted)) if wanted is not None else []
            except DatabaseError as error:
                made = (self._root / entry.path).exists() and "no such table" not in str(error.orig)
                if made and entry.number in {e.number for e in self._ledger.segments(OPEN, SEALING, SEALED)}:
                    raise
                continue
            yield rows

    def _archived(self, query: _Query) -> list[Any]:
        with readonly(self._ledger.path).connect() as connection:
            wanted = query(connection)
            return list(connection.execute(wanted)) if wanted is not None else []


def _whole(one: Row, other: Row) -> Row:
    """Of two rows of one epoch the one with an end, its kind what it is and not that of a finding about it."""
    ended, going_on = (one, other) if one["ended_us"] is not None else (other, one)
    kinds = [row.get("kind", "stream") for row in (ended, going_on) if row.get("kind", "stream") != "finding"]
    return {**going_on, **ended, "kind": kinds[0] if kinds else "finding"}


def _among(column: Any, values: list[str]) -> Callable[[Select[Any]], Select[Any]]:
    return lambda query: query.where(column.in_(values))


def _chunks(values: Collection[str]) -> Iterator[list[str]]:
    wanted = sorted(set(values))
    for start in range(0, len(wanted), _CHUNK):
        yield wanted[start : start + _CHUNK]
