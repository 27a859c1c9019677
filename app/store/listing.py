"""Short lists and sums for people who look: the newest first, bounded, and no frame is ever read whole. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from app.store.engine import readonly
from app.store.ledger import OPEN, REMOVED, REMOVING, SEALED, SEALING, VERIFIED, Ledger

Row = dict[str, Any]
#: Of a quarantined frame so many bytes are told.
HEAD_BYTES = 200


class Archived(NamedTuple):
    """A verified object of one store, and when its segment was open."""

    segment: int
    exchange: str
    symbol: str
    data_type: str
    key: str
    manifest_key: str
    rows: int
    size_bytes: int
    opened_us: int
    sealed_us: int


class Cursor(NamedTuple):
    """The last object of a page: the next one begins after it."""

    segment: int
    exchange: str
    symbol: str
    data_type: str


class Listing:
    """One data directory as it is now."""

    def __init__(self, ledger: Ledger, segments_root: Path) -> None:
        self._ledger, self._root = ledger, segments_root
        #: Sums of the objects of segments below a number, by store and feed: all of these segments are gone for good.
        self._settled: tuple[int, dict[tuple[str, ...], list[int]]] = (0, {})
        #: What the ledger has in quarantine by feed, while the same segments are removed.
        self._counted: tuple[tuple[int, int], list[Row]] | None = None

    def archived(self, store: str, start_us: int, end_us: int) -> list[Archived]:
        """The verified objects of segments that were open in [start_us, end_us), the oldest first."""
        query = (
            f"SELECT {', '.join(f'o.{name}' for name in Archived._fields[:-2])}, s.opened_us, s.sealed_us"
            " FROM segments AS s CROSS JOIN objects AS o ON o.segment = s.number"
            " WHERE s.opened_us < ? AND s.sealed_us > ? AND o.store = ? AND o.state = ?"
        )
        with readonly(self._ledger.path).connect() as connection:
            found = connection.exec_driver_sql(query, (end_us, start_us, store, VERIFIED))
            return [Archived(*row) for row in found]

    def objects(self, limit: int, before: Cursor | None = None, **where: str) -> list[Row]:
        """At most `limit` objects after `before`, those of the newest segment first, one row for each store that has it."""
        key, wanted = ", ".join(Cursor._fields), [f"o.{name} = ?" for name in where]
        parameters: list[Any] = list(where.values())
        if before is not None:
            wanted.append(f"({key}) < (?, ?, ?, ?)")
            parameters += before
        query = (
            "SELECT o.*, s.opened_us, s.sealed_us FROM objects AS o JOIN segments AS s ON s.number = o.segment"
            f" WHERE {' AND '.join(wanted) or '1'} ORDER BY {', '.join(f'o.{name} DESC' for name in Cursor._fields)} LIMIT ?"
        )
        with readonly(self._ledger.path).connect() as connection:
            return [dict(row._mapping) for row in connection.exec_driver_sql(query, (*parameters, limit))]

    def sums(self) -> dict[tuple[str, ...], list[int]]:
        """(store, exchange, symbol, data type, state) -> objects, rows, bytes. Counted anew only where it may have changed."""
        query = (
            "SELECT store, exchange, symbol, data_type, state, count(*), sum(rows), sum(size_bytes) FROM objects"
            " WHERE segment >= ? AND segment < ? GROUP BY store, exchange, symbol, data_type, state"
        )
        with readonly(self._ledger.path).connect() as connection:
            connection.exec_driver_sql("BEGIN")
            below, held = self._settled
            kept = connection.exec_driver_sql(
                "SELECT coalesce((SELECT min(number) FROM segments WHERE state != ?), max(number) + 1, 0) FROM segments",
                (REMOVED,),
            ).scalar_one()
            settled = _added(held, connection.exec_driver_sql(query, (below, kept)))
            self._settled = kept, settled
            return _added(settled, connection.exec_driver_sql(query, (kept, 2**62)))

    def grown(self, store: str, since_us: int) -> tuple[int, int | None]:
        """Bytes of the verified objects whose segment was sealed from `since_us` on, and when the first of these was opened."""
        query = (
            "SELECT coalesce(sum(o.size_bytes), 0), min(s.opened_us) FROM segments AS s CROSS JOIN objects AS o"
            " ON o.segment = s.number WHERE s.sealed_us >= ? AND o.store = ? AND o.state = ?"
        )
        with readonly(self._ledger.path).connect() as connection:
            size, opened_us = connection.exec_driver_sql(query, (since_us, store, VERIFIED)).one()
            return int(size), opened_us

    def conflicts(self, limit: int) -> tuple[int, list[Row]]:
        """How many keys had other bytes under them, and at most `limit` of these, the newest segment first."""
        with readonly(self._ledger.path).connect() as connection:
            count = connection.exec_driver_sql("SELECT count(*) FROM conflicts").scalar_one()
            found = connection.exec_driver_sql("SELECT * FROM conflicts ORDER BY segment DESC LIMIT ?", (limit,))
            return int(count), [dict(row._mapping) for row in found]

    def removed(self) -> tuple[int, int]:
        """How many segments' records the ledger has, and the number of the newest: while both stand, so do the records."""
        query = "SELECT count(*), coalesce(max(number), 0) FROM segments WHERE state IN (?, ?)"
        with readonly(self._ledger.path).connect() as connection:
            count, newest = connection.exec_driver_sql(query, (REMOVING, REMOVED)).one()
            return int(count), int(newest)

    def quarantined(self, limit: int) -> tuple[list[Row], list[Row]]:
        """Rows in quarantine by feed (`count`), and the newest `limit` of them with the first HEAD_BYTES of their frame."""
        newest = (
            f"SELECT epoch, exchange, symbol, feed, number, received_us, reason, length(frame) AS size_bytes,"
            f" substr(frame, 1, {HEAD_BYTES}) AS head FROM quarantine ORDER BY received_us DESC LIMIT {limit}"
        )
        counts = "SELECT exchange, symbol, feed, count(*) AS count FROM quarantine GROUP BY exchange, symbol, feed"
        heads: dict[tuple[Any, ...], Row] = {}
        by_feed: dict[tuple[str, str, str], int] = {}
        version, answers = self.removed(), self._kept(counts, newest)
        if self._counted is None or self._counted[0] != version:
            self._counted = version, self._archived(counts)[0]
        for counted, rows in [*answers, (self._counted[1], self._archived(newest)[0])]:
            for row in counted:
                feed = row["exchange"], row["symbol"], row["feed"]
                by_feed[feed] = by_feed.get(feed, 0) + row["count"]
            heads.update(((row["epoch"], row["symbol"], row["feed"], row["number"]), row) for row in rows)
        told = [
            dict(zip(("exchange", "symbol", "feed", "count"), (*f, n), strict=True)) for f, n in sorted(by_feed.items())
        ]
        return told, sorted(heads.values(), key=lambda row: -row["received_us"])[:limit]

    def ended(self, limit: int) -> list[Row]:
        """The connections that ended last, at most `limit`, the newest end first."""
        query = (
            "SELECT epoch, stream, exchange, opened_us, ended_us, reason FROM epochs"
            f" WHERE ended_us IS NOT NULL AND kind = 'stream' ORDER BY ended_us DESC LIMIT {limit}"
        )
        answers = [*self._kept(query), self._archived(query)]
        found = {row["epoch"]: row for (rows,) in answers for row in rows}
        return sorted(found.values(), key=lambda row: -row["ended_us"])[:limit]

    def _kept(self, *queries: str) -> list[Sequence[list[Row]]]:
        """The answers of each kept segment."""
        answers: list[Sequence[list[Row]]] = []
        for entry in reversed(self._ledger.segments(OPEN, SEALING, SEALED)):
            try:
                with readonly(self._root / entry.path, immutable=entry.state == SEALED).connect() as connection:
                    answers.append([_rows(connection, query) for query in queries])
            except DatabaseError:  # being made, removed meanwhile, or damaged: the flush says so
                continue
        return answers

    def _archived(self, *queries: str) -> Sequence[list[Row]]:
        """The answers of the ledger; asked after `_kept`, the way records travel."""
        with readonly(self._ledger.path).connect() as connection:
            return [_rows(connection, query) for query in queries]


def _rows(connection: Connection, query: str) -> list[Row]:
    return [dict(row._mapping) for row in connection.exec_driver_sql(query)]


def _added(held: dict[tuple[str, ...], list[int]], found: Iterable[Any]) -> dict[tuple[str, ...], list[int]]:
    sums = {key: [*values] for key, values in held.items()}
    for *key, count, rows, size in found:
        sum_ = sums.setdefault(tuple(key), [0, 0, 0])
        for n, value in enumerate((count, rows, size)):
            sum_[n] += value
    return sums
