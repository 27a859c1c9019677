"""Which numbers of an epoch are stored already: what makes a replayed batch a no-op, and a hole in the numbers visible."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, Table, literal_column, select

from app.model import Range
from app.store.schema import LEDGER_RECORDS, SEGMENT_RECORDS

_Ranges = dict[tuple[str, str, str], list[tuple[int, int]]]
#: SQLite's bound on parameters is higher; a claim has few epochs.
_CHUNK = 500


class KnownRanges:
    """United ranges by (epoch, symbol, feed), collected from the kept segments and the ledger."""

    def __init__(self) -> None:
        self._kept: _Ranges = {}
        self._filling: _Ranges = {}
        #: Numbers that were declared lost, kept like those that are stored.
        self._kept_lost: _Ranges = {}
        self._filling_lost: _Ranges = {}
        #: By the last number of a stored range, when its event was received, where that is known.
        self._last_us: dict[tuple[str, str, str], dict[int, int]] = {}
        self._epochs: set[str] = set()
        self._in_doubt: set[str] = set()

    def missing(self, epochs: Iterable[str]) -> list[str]:
        """Those of `epochs` that have not been loaded yet; they count as loaded from now on."""
        fresh = sorted(set(epochs) - self._epochs)
        self._epochs.update(fresh)
        return fresh

    def load(self, connection: Connection, epochs: list[str], *, ledger: bool = False) -> None:
        """Add the ranges that this file, to which nothing is added any more, knows of `epochs`."""
        records = LEDGER_RECORDS if ledger else SEGMENT_RECORDS
        self._read(self._kept, connection, epochs, records["ranges"])
        self._read(self._kept_lost, connection, epochs, records["losses"])

    def doubt(self, epochs: Iterable[str]) -> None:
        """A file that may hold numbers of `epochs` cannot be read: of these no hole can be proved."""
        self._in_doubt.update(epochs)

    def renew(self, connection: Connection, epochs: list[str]) -> None:
        """What the open segment holds of `epochs`, in place of what was said of it before. Call it inside the
        transaction that adds to it: another flush may have stored some of it since the last one."""
        self._filling, self._filling_lost = {}, {}
        self._read(self._filling, connection, epochs, SEGMENT_RECORDS["ranges"])
        self._read(self._filling_lost, connection, epochs, SEGMENT_RECORDS["losses"])

    def _read(self, ranges: _Ranges, connection: Connection, epochs: list[str], table: Table) -> None:
        for start in range(0, len(epochs), _CHUNK):
            # Every column: files of an older version have fewer.
            every: Select[Any] = select(literal_column("*")).select_from(table)
            query = every.where(table.c.epoch.in_(epochs[start : start + _CHUNK]))
            if "count" in table.c:  # a loss of unknown extent names no number
                query = query.where(table.c.count.is_not(None))
            for row in connection.execute(query).mappings():
                key = row["epoch"], row["symbol"], row["feed"]
                ranges.setdefault(key, []).append((row["first"], row["last"]))
                if last_us := row.get("last_us"):
                    self._last_us.setdefault(key, {})[row["last"]] = last_us

    def add(self, epoch: str, added: Range, last_us: int | None = None) -> None:
        """These numbers are stored from now on, the last of them received at `last_us`."""
        key = epoch, added.symbol, added.feed
        ranges = self._filling.setdefault(key, [])
        times = self._last_us.setdefault(key, {})
        if ranges and ranges[-1][1] + 1 == added.first:
            if last_us is not None:
                times.pop(ranges[-1][1], None)
            ranges[-1] = ranges[-1][0], added.last
        else:
            ranges.append((added.first, added.last))
        if last_us is not None:
            times[added.last] = last_us

    def lose(self, epoch: str, symbol: str, feed: str, first: int, last: int) -> None:
        """These numbers are declared lost from now on."""
        self._filling_lost.setdefault((epoch, symbol, feed), []).append((first, last))

    def is_lost(self, epoch: str, symbol: str, feed: str, first: int, last: int) -> bool:
        """Whether just these numbers are declared lost already."""
        key = epoch, symbol, feed
        return any((first, last) in lost.get(key, ()) for lost in (self._kept_lost, self._filling_lost))

    def hole_before(self, epoch: str, arrived: Range) -> list[tuple[int, int]]:
        """Numbers below `arrived`, down to what is stored there, that are neither stored nor declared lost.

        A stream's batches come in order, out of Redis and spool alike: what is missing here waits nowhere any more.
        """
        key = epoch, arrived.symbol, arrived.feed
        if epoch in self._in_doubt:
            return []
        stored = self._kept.get(key, []) + self._filling.get(key, [])
        below = (min(last, arrived.first - 1) for first, last in stored if first < arrived.first)
        next_number = max(below, default=0) + 1
        if next_number == arrived.first:
            return []
        found = []
        for first, last in sorted(self._kept_lost.get(key, []) + self._filling_lost.get(key, [])):
            if next_number < min(first, arrived.first):
                found.append((next_number, min(first, arrived.first) - 1))
            next_number = max(next_number, last + 1)
        if next_number < arrived.first:
            found.append((next_number, arrived.first - 1))
        return found

    def received_before(self, epoch: str, symbol: str, feed: str, number: int) -> int | None:
        """When the last stored event below `number` was received; None where none is, or nothing says so."""
        times = self._last_us.get((epoch, symbol, feed), {})
        return max((us for last, us in times.items() if last < number), default=None)

    def covers(self, epoch: str, asked: Range) -> bool:
        """True when all of `asked` is stored."""
        key = epoch, asked.symbol, asked.feed
        return any(
            first <= asked.first and asked.last <= last
            for ranges in (self._kept, self._filling)
            for first, last in ranges.get(key, ())
        )
