"""The book of a market after its last stored row: back through segments and objects to a snapshot, no further than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from app.books.change import Row
from app.books.rebuild import Rebuild
from app.books.venues import VENUES
from app.model import ORDERBOOK, Market
from app.objects import parquet
from app.objects.store import Store
from app.store.ledger import OPEN, SEALED, SEALING, VERIFIED, Ledger
from app.store.listing import Cursor, Listing
from app.store.segment import SealedSegment

#: Further back nothing is looked for: a book may wait for its next snapshot, whoever asks may not.
MOST_ROWS = 40_000
#: Entries of the ledger that are read at a time.
PAGE_OBJECTS = 16


def last_book(
    ledger: Ledger, segments_root: Path, store: Callable[[], Store], market: Market, *, most_rows: int = MOST_ROWS
) -> tuple[Rebuild, list[Row]] | None:
    """The rebuilt book of `market`, which there is, and the rows it was made of, in the order they were stored.

    The last snapshot may not do: where connections overlapped, changes that follow it may stand before it, and the series
    of the one before it has to be read. None where there is no book within `most_rows`, or where something of a connection is
    on record as missing since its snapshot.
    Raises: DBAPIError for a ledger or segment that cannot be read; StoreError, OSError for a store.
    """
    newest_first: list[Row] = []
    for row in islice(_backwards(ledger, segments_root, store, market, most_rows), most_rows):
        newest_first.append(row)
        try:
            whole = VENUES[market.exchange].read(row.data, market.symbol).whole
        except ValueError:  # the rebuild refuses it as well
            continue
        if whole:
            if _missing_since(ledger, segments_root, market, row):
                return None
            rows, rebuild = newest_first[::-1], Rebuild(market.exchange, market.symbol)
            for one in rows:
                rebuild.apply(one)
                rebuild.decided.clear()
            if rebuild.book is not None:
                return rebuild, rows
    return None


def _backwards(ledger: Ledger, root: Path, store: Callable[[], Store], market: Market, most_rows: int) -> Iterator[Row]:
    kept = ledger.segments(OPEN, SEALING, SEALED)
    for entry in reversed(kept):
        path = root / entry.path
        if path.exists():
            segment = SealedSegment(path, settled=entry.state == SEALED)
            for rows in segment.latest_book_rows(market.exchange, market.symbol, most_rows):
                yield from map(Row._make, rows)
    held = {entry.number for entry in kept}
    seen: set[int] = set()
    for found in _objects(Listing(ledger, root), market):
        if found["segment"] in held or found["segment"] in seen:
            continue
        if found["rows"] > most_rows:
            return
        seen.add(found["segment"])
        with store().open(found["key"]) as file:
            yield from map(Row._make, reversed([row for chunk in parquet.read(file) for row in chunk]))


def _objects(listing: Listing, market: Market) -> Iterator[dict[str, Any]]:
    """The market's verified objects of books, the newest first: a few at a time, for mostly the first will do."""
    where = {"exchange": market.exchange, "symbol": market.symbol, "data_type": ORDERBOOK, "state": VERIFIED}
    before: Cursor | None = None
    while page := listing.objects(PAGE_OBJECTS, before, **where):
        yield from page
        before = Cursor(*(page[-1][name] for name in Cursor._fields))


def _missing_since(ledger: Ledger, root: Path, market: Market, snapshot: Row) -> bool:
    """Whether a gap or loss of the snapshot's connection is on record after it: where rows have no numbers, nothing
    else tells of it."""
    where = {"exchange": market.exchange, "symbol": market.symbol, "feed": ORDERBOOK, "epoch": snapshot.epoch}

    def after(rows: Sequence[dict[str, object]], column: str) -> bool:
        return any(int(str(row[column])) > snapshot.timestamp_collector for row in rows)

    for entry in ledger.segments(OPEN, SEALING, SEALED):
        try:
            segment = SealedSegment(root / entry.path, settled=entry.state == SEALED)
            if after(segment.records("gaps", **where), "after_us") or after(
                segment.records("losses", **where), "end_us"
            ):
                return True
        except DBAPIError:
            if (root / entry.path).exists():
                raise
    return after(ledger.records("gaps", **where), "after_us") or after(ledger.records("losses", **where), "end_us")
