"""Which numbers of an epoch are stored already: what makes a replayed batch a no-op."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Table, select

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
        self._epochs: set[str] = set()

    def missing(self, epochs: Iterable[str]) -> list[str]:
        """Those of `epochs` that have not been loaded yet; they count as loaded from now on."""
        fresh = sorted(set(epochs) - self._epochs)
        self._epochs.update(fresh)
        return fresh

    def load(self, connection: Connection, epochs: list[str], *, ledger: bool = False) -> None:
        """Add the ranges that this file, to which nothing is added any more, knows of `epochs`."""
        self._read(self._kept, connection, epochs, (LEDGER_RECORDS if ledger else SEGMENT_RECORDS)["ranges"])

    def renew(self, connection: Connection, epochs: list[str]) -> None:
        """What the open segment holds of `epochs`, in place of what was said of it before. Call it inside the
        transaction that adds to it: another flush may have stored some of it since the last one."""
        self._filling = {}
        self._read(self._filling, connection, epochs, SEGMENT_RECORDS["ranges"])

    def _read(self, ranges: _Ranges, connection: Connection, epochs: list[str], table: Table) -> None:
        columns = (table.c.epoch, table.c.symbol, table.c.feed, table.c.first, table.c.last)
        for start in range(0, len(epochs), _CHUNK):
            query = select(*columns).where(table.c.epoch.in_(epochs[start : start + _CHUNK]))
            for epoch, symbol, feed, first, last in connection.execute(query):
                ranges.setdefault((epoch, symbol, feed), []).append((first, last))

    def add(self, epoch: str, added: Range) -> None:
        """These numbers are stored from now on."""
        ranges = self._filling.setdefault((epoch, added.symbol, added.feed), [])
        if ranges and ranges[-1][1] + 1 == added.first:
            ranges[-1] = ranges[-1][0], added.last
        else:
            ranges.append((added.first, added.last))

    def covers(self, epoch: str, asked: Range) -> bool:
        """True when all of `asked` is stored."""
        key = epoch, asked.symbol, asked.feed
        return any(
            first <= asked.first and asked.last <= last
            for ranges in (self._kept, self._filling)
            for first, last in ranges.get(key, ())
        )
