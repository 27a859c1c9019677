"""Twins of events that come late: a spool that was away for hours holds what another connection delivered in time.

Their twins are not in the segment before, but in an older one, or in the objects of one that is gone. So are those of events
that a venue repeats when a connection begins, hours after they happened: where somebody was there then, around that time,
else where an earlier connection began. Clocks choose only where to look (generously); whether two events are one is decided
by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from app import telemetry_disk
from app.errors import StoreError, VerifyFailed
from app.model import ORDERBOOK, TRADE, Batch, Event
from app.objects import parquet
from app.objects.store import Store
from app.store.insert import Lookup, conflict_id
from app.store.ledger import REMOVED, REMOVING, SEALED, SEALING, VERIFIED, Ledger, SegmentEntry
from app.store.segment import SealedSegment

#: Twins are received within minutes of each other; so far around the late events their segments are looked up.
WINDOW_US = 600 * 1_000_000

Held = dict[tuple[str, str], str]


def happened_us(event: Event) -> int:
    """When an event was received or, by its venue, happened: a new subscription repeats the last trade of hours ago."""
    return event.received_us if event.exchange_us is None else min(event.received_us, event.exchange_us)


class LateTwins:
    """Looks in kept segments and, through the store, in the objects of removed ones."""

    def __init__(self, ledger: Ledger, segments_root: Path, store: Callable[[], Store]) -> None:
        self._ledger, self._root, self._store = ledger, segments_root, store

    def find(self, batches: Sequence[Batch], opened_us: int) -> Lookup | None:
        """A lookup for those events of `batches` that happened before `opened_us`; None where there are none.

        Objects are read here, so that no transaction waits for a store. Raises: StoreError; OSError.
        """
        late = [
            (batch.exchange, event) for batch in batches for event in batch.events if happened_us(event) < opened_us
        ]
        if not late:
            return None
        first_us = min(happened_us(event) for _, event in late) - WINDOW_US
        last_us = max(happened_us(event) for _, event in late) + WINDOW_US
        repeated = {
            (exchange, event.symbol) for exchange, event in late if event.received_us - happened_us(event) > WINDOW_US
        }
        spans = [(first_us, last_us), *self._brought_later(late, repeated, first_us)]
        around = [
            entry
            for entry in self._ledger.segments()
            if (repeated and entry.state in (SEALING, SEALED))
            or any(
                entry.opened_us <= last and (entry.sealed_us is None or entry.sealed_us >= first)
                for first, last in spans
            )
        ]
        kept = [
            SealedSegment(self._root / entry.path, settled=entry.state == SEALED)
            for entry in around
            if entry.state in (SEALING, SEALED)
        ]
        removed = self._in_objects([entry for entry in around if entry.state in (REMOVING, REMOVED)], late)

        def lookup(exchange: str, feed: str, events: Sequence[Event]) -> Held:
            held = dict(removed.get((exchange, feed), {}))
            for segment in kept:
                held.update(segment.twins(exchange, feed, events))
            return held

        return lookup

    def _brought_later(
        self, late: Sequence[tuple[str, Event]], repeated: Collection[tuple[str, str]], since_us: int
    ) -> Iterable[tuple[int, int]]:
        """Where events of these markets lie that were stored long after they happened: trades around the time when they were
        fetched, and what connections repeat around the beginning of each connection since then."""
        for exchange in {exchange for exchange, _ in late}:
            symbols = {event.symbol for name, event in late if name == exchange and event.feed == TRADE}
            begun_us = self._ledger.begun(exchange, symbols, since_us, "rest") if symbols else []
            if again := {symbol for name, symbol in repeated if name == exchange}:
                begun_us += self._ledger.begun(exchange, again, since_us, "stream")
            for at_us in begun_us:
                yield at_us - WINDOW_US, at_us + WINDOW_US

    def _in_objects(
        self, segments: Iterable[SegmentEntry], late: Sequence[tuple[str, Event]]
    ) -> dict[tuple[str, str], Held]:
        asked: dict[tuple[str, str, str], set[str]] = {}
        for exchange, event in late:
            ids = asked.setdefault((exchange, event.symbol, event.feed), set())
            ids.add(event.sequence_id)
            if event.feed == ORDERBOOK:
                ids.add(conflict_id(event))
        held: dict[tuple[str, str], Held] = {}
        for segment in segments:
            for entry in self._ledger.objects(segment.number):
                ids = asked.get(entry[1:4], set())
                if ids and entry.state == VERIFIED and entry.store == self._store().name:
                    found = held.setdefault((entry.exchange, entry.data_type), {})
                    found.update({(entry.symbol, name): data for name, data in self._rows(entry.key, ids)})
        return held

    def _rows(self, key: str, ids: set[str]) -> list[tuple[str, str]]:
        """Rows of an object by identity. None of one that is lost: to wait for it would stop recording for ever."""
        try:
            with self._store().open(key) as file:
                return [(name, data) for chunk in parquet.read(file) for name, _, _, data, _ in chunk if name in ids]
        except (StoreError, OSError, ValueError) as error:
            if not _is_lost(error):
                raise
            telemetry_disk.twins_unknown(key, error)
            return []


def _is_lost(error: Exception) -> bool:
    """Whether an object will not be readable the next time either: gone, moved to a class of storage that cannot be read, or
    damaged (pyarrow says so by a ValueError, or an OSError that is none of the system's)."""
    if isinstance(error, StoreError):
        return isinstance(error, VerifyFailed) or "InvalidObjectState" in str(error)
    return isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno is None)
