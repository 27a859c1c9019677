"""Which numbers of an epoch are stored already: what makes a replayed batch a no-op."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from app.model import Range
from app.store.schema import LEDGER_RECORDS, SEGMENT_RECORDS

#: SQLite's bound on parameters is higher; a claim has few epochs.
_CHUNK = 500


class KnownRanges:
    """United ranges by (epoch, symbol, feed), collected from the kept segments and the ledger."""

    def __init__(self) -> None:
        self._ranges: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
        self._epochs: set[str] = set()

    def missing(self, epochs: Iterable[str]) -> list[str]:
        """Those of `epochs` that have not been loaded yet; they count as loaded from now on."""
        fresh = sorted(set(epochs) - self._epochs)
        self._epochs.update(fresh)
        return fresh

    def load(self, connection: Connection, epochs: list[str], *, ledger: bool = False) -> None:
        """Add the ranges that this file knows of `epochs`."""
        table = (LEDGER_RECORDS if ledger else SEGMENT_RECORDS)["ranges"]
        columns = (table.c.epoch, table.c.symbol, table.c.feed, table.c.first, table.c.last)
        for start in range(0, len(epochs), _CHUNK):
            query = select(*columns).where(table.c.epoch.in_(epochs[start : start + _CHUNK]))
            for epoch, symbol, feed, first, last in connection.execute(query):
                self._ranges.setdefault((epoch, symbol, feed), []).append((first, last))

    def add(self, epoch: str, added: Range) -> None:
        """These numbers are stored from now on."""
        ranges = self._ranges.setdefault((epoch, added.symbol, added.feed), [])
        if ranges and ranges[-1][1] + 1 == added.first:
            ranges[-1] = ranges[-1][0], added.last
        else:
            ranges.append((added.first, added.last))

    def covers(self, epoch: str, asked: Range) -> bool:
        """True when all of `asked` is stored."""
        ranges = self._ranges.get((epoch, asked.symbol, asked.feed), ())
        return any(first <= asked.first and asked.last <= last for first, last in ranges)
