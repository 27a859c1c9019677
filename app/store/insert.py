"""Batches -> rows and records of a segment, inside one transaction. Every event ends as exactly one of stored, duplicate,
quarantined or replay, and each outcome is counted on its range."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app import telemetry
from app.model import ORDERBOOK, Batch, Event, Loss, Range
from app.store.engine import classify
from app.store.holes import with_holes
from app.store.known import KnownRanges
from app.store.records import set_aside, write
from app.store.tallies import Counts, Tallies, write_ranges

#: exchange, symbol, exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch
Row = tuple[str, str, str, int, int | None, str, str]
#: Given (exchange, feed, events): the bytes already stored elsewhere under the same identity, by (symbol, id).
Lookup = Callable[[str, str, Sequence[Event]], dict[tuple[str, str], str]]

#: Events of one feed, by the batches that brought them. No pair for each event: the collector would walk over all of them.
Groups = Sequence[tuple[Batch, Sequence[Event]]]

_TABLES = {"orderbook": "orderbooks", "trade": "trades"}
_INSERT = (
    "INSERT INTO {} (exchange, symbol, exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (exchange, symbol, exchange_sequence_id) DO NOTHING"
)


@dataclass
class Outcomes:
    """The same feed by feed, of one transaction. Feeds are (exchange, symbol, feed)."""

    feeds: dict[tuple[str, str, str], Counts] = field(default_factory=dict)
    #: Events that no connection brought: asked for over REST, or foreign to us.
    fetched: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    #: (exchange, symbol, feed, cause) -> events that are declared lost from now on.
    lost: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    #: The same -> losses that are declared from now on, also those of unknown extent.
    declared: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)

    def of(self, exchange: str, symbol: str, feed: str) -> Counts:
        return self.feeds.setdefault((exchange, symbol, feed), Counts())

    def lose(self, exchange: str, losses: Iterable[Loss]) -> None:
        for loss in losses:
            key = exchange, loss.symbol, loss.feed, loss.cause
            self.lost[key] += loss.count or 0
            self.declared[key] += 1


def insert(
    connection: Connection,
    batches: Sequence[Batch],
    known: KnownRanges,
    twins: Lookup | None,
    outcomes: Outcomes | None = None,
) -> Counts:
    """Store `batches` in order and return what became of their events; `outcomes` is told the same by feed.

    `known` must cover the epochs of `batches`; it is extended, so discard it when the transaction does not commit.
    `twins` finds events that another file holds already (the segment before this one); None where there is none.
    Raises: sqlalchemy.exc.DBAPIError for locked, full and io errors: nothing is stored then.
    """
    total, outcomes = Counts(), outcomes or Outcomes()
    tallies = Tallies()
    by_feed: dict[tuple[str, str], list[tuple[Batch, Sequence[Event]]]] = {}
    for batch in batches:
        replayed = _replays(connection, batch, known, outcomes)
        if replayed and len(replayed) == len(batch.ranges):
            continue  # its records were committed with its ranges; here they would say everything a second time
        ends = {number for r in batch.ranges for number in (r.first, r.last)}
        bearers = {(e.symbol, e.feed, e.number): e for e in batch.events if e.number in ends}
        for added in batch.ranges:
            if added not in replayed:
                head, tail = (bearers.get((added.symbol, added.feed, number)) for number in (added.first, added.last))
                known.add(batch.epoch, added, tail.received_us if tail else None)
                tallies.add(batch, added, head, tail)
                if batch.kind != "stream":
                    outcomes.fetched[batch.exchange, added.symbol, added.feed] += added.last - added.first + 1
        fresh = batch.events
        if replayed:
            fresh = tuple([e for e in fresh if not _within(e.symbol, e.feed, e.number, replayed)])
        feeds = dict.fromkeys([event.feed for event in fresh])
        for feed in feeds:
            of_feed = fresh if len(feeds) == 1 else [event for event in fresh if event.feed == feed]
            by_feed.setdefault((batch.exchange, feed), []).append((batch, of_feed))
        told = {
            loss for loss in batch.losses if known.is_lost(batch.epoch, loss.symbol, loss.feed, loss.first, loss.last)
        }
        declared = with_holes(batch, known)
        write(connection, declared)
        outcomes.lose(batch.exchange, (loss for loss in declared.losses if loss not in told))
        for unit in batch.quarantined:
            if not replayed or not _within(unit.symbol, unit.feed, unit.number, replayed):
                tallies.of(batch.epoch, unit.symbol, unit.feed, unit.number).quarantined += 1
                set_aside(
                    connection, batch, unit.symbol, unit.feed, unit.number, unit.received_us, unit.reason, unit.frame
                )
    for (exchange, feed), groups in by_feed.items():
        _rows(connection, exchange, feed, groups, tallies, twins)
    write_ranges(connection, tallies)
    for (_, symbol, feed), feed_runs in tallies.runs.items():
        for tally in feed_runs:
            outcomes.of(tally.exchange, symbol, feed).add(tally.counts)
    for counts in outcomes.feeds.values():
        total.add(counts)
    return total


def _within(symbol: str, feed: str, number: int, ranges: set[Range]) -> bool:
    return any(r.symbol == symbol and r.feed == feed and r.first <= number <= r.last for r in ranges)


def _replays(connection: Connection, batch: Batch, known: KnownRanges, outcomes: Outcomes) -> set[Range]:
    """The ranges of `batch` that are stored already; each is put on record."""
    replayed = {r for r in batch.ranges if known.covers(batch.epoch, r)}
    for r in replayed:
        outcomes.of(batch.exchange, r.symbol, r.feed).replays += r.last - r.first + 1
        connection.exec_driver_sql(
            "INSERT INTO replays (epoch, symbol, feed, first, last, times) VALUES (?, ?, ?, ?, ?, 1)"
            " ON CONFLICT (epoch, symbol, feed, first) DO UPDATE SET times = times + 1, last = max(last, excluded.last)",
            (batch.epoch, r.symbol, r.feed, r.first, r.last),
        )
    return replayed


def _rows(
    connection: Connection,
    exchange: str,
    feed: str,
    groups: Groups,
    tallies: Tallies,
    twins: Lookup | None,
) -> None:
    """Insert the rows of one feed, and find out what became of each that was not inserted."""
    table = _TABLES[feed]
    if twins is not None:
        held = twins(exchange, feed, [event for _, events in groups for event in events])
        if held:
            renamed = [
                msgspec.structs.replace(event, sequence_id=conflict_id(event))
                for _, events in groups
                for event in events
                if event.feed == ORDERBOOK and held.get((event.symbol, event.sequence_id), event.data) != event.data
            ]
            groups = _without_twins(connection, table, groups, held | twins(exchange, feed, renamed), tallies)
    sql = _INSERT.format(table)
    newest = connection.exec_driver_sql(f"SELECT max(id) FROM {table}").scalar() or 0
    connection.exec_driver_sql("SAVEPOINT rows")
    try:
        inserted = 0
        for batch, events in groups:  # one by one: the collector would walk over all rows of a claim, again and again
            epoch = batch.epoch
            rows = [(exchange, e.symbol, e.sequence_id, e.received_us, e.exchange_us, e.data, epoch) for e in events]
            inserted += connection.exec_driver_sql(sql, rows).rowcount if rows else 0
    except (DBAPIError, OverflowError, UnicodeError) as error:
        if classify(error) != "constraint":
            raise
        connection.exec_driver_sql("ROLLBACK TO rows")
        groups = _one_by_one(connection, sql, groups, tallies)
        inserted = -1
    connection.exec_driver_sql("RELEASE rows")
    if inserted == sum(len(events) for _, events in groups):
        for (epoch, symbol, number), count in _spans(groups):
            tallies.of(epoch, symbol, feed, number).stored += count
        return
    fresh = {
        (symbol, identity): 1
        for symbol, identity in connection.exec_driver_sql(
            f"SELECT symbol, exchange_sequence_id FROM {table} WHERE id > ? AND exchange = ?", (newest, exchange)
        )
    }
    for batch, event in _each(groups):
        counts = tallies.of(batch.epoch, event.symbol, feed, event.number)
        if fresh.pop((event.symbol, event.sequence_id), None):
            counts.stored += 1
        else:
            query = f"SELECT data FROM {table} WHERE exchange = ? AND symbol = ? AND exchange_sequence_id = ?"
            stored = connection.exec_driver_sql(query, (exchange, event.symbol, event.sequence_id)).scalar()
            _settle_twin(connection, table, batch, event, stored, counts)


def _row(batch: Batch, event: Event) -> Row:
    return (
        batch.exchange, event.symbol, event.sequence_id, event.received_us, event.exchange_us, event.data, batch.epoch,
    )  # fmt: skip


def _each(groups: Groups) -> Iterator[tuple[Batch, Event]]:
    return ((batch, event) for batch, events in groups for event in events)


def _spans(groups: Groups) -> list[tuple[tuple[str, str, int], int]]:
    """Events counted per (epoch, symbol, some number of the run); a run never crosses a hole in the numbers."""
    spans: list[tuple[tuple[str, str, int], int]] = []
    open_spans: dict[tuple[str, str], list[int]] = {}
    for batch, events in groups:
        epoch, symbol, span = batch.epoch, "", None
        for event in events:
            number = event.number
            if event.symbol != symbol:  # mostly the one before's
                symbol = event.symbol
                span = open_spans.get((epoch, symbol))
            if span is not None and number == span[1] + 1:
                span[1] = number
                continue
            if span is not None:
                spans.append(((epoch, symbol, span[0]), span[1] - span[0] + 1))
            span = open_spans[epoch, symbol] = [number, number]
    return spans + [((*key, first), last - first + 1) for key, (first, last) in open_spans.items()]


def conflict_id(event: Event) -> str:
    """The identity of a book frame whose own is taken by other bytes."""
    return f"{event.sequence_id}~{hashlib.sha256(event.data.encode()).hexdigest()[:8]}"


def _settle_twin(
    connection: Connection, table: str, batch: Batch, event: Event, stored: str | None, counts: Counts
) -> None:
    """An event whose identity is taken: a duplicate, or (books only) other bytes under the same id, stored as id~hash."""
    if event.feed != ORDERBOOK or stored == event.data:
        counts.duplicates += 1
        return
    row = list(_row(batch, event))
    row[2] = conflict_id(event)
    if connection.exec_driver_sql(_INSERT.format(table), tuple(row)).rowcount == 1:
        counts.stored += 1
        counts.conflicts += 1
    else:
        counts.duplicates += 1


def _without_twins(
    connection: Connection,
    table: str,
    groups: Groups,
    held: dict[tuple[str, str], str],
    tallies: Tallies,
) -> Groups:
    left = []
    for batch, events in groups:
        left.append((batch, kept := list[Event]()))
        for event in events:
            stored = held.get((event.symbol, conflict_id(event)), held.get((event.symbol, event.sequence_id)))
            if stored is None:
                kept.append(event)
            else:
                counts = tallies.of(batch.epoch, event.symbol, event.feed, event.number)
                _settle_twin(connection, table, batch, event, stored, counts)
    return left


def _one_by_one(connection: Connection, sql: str, groups: Groups, tallies: Tallies) -> Groups:
    """Insert row by row; a row that SQLite refuses by value is quarantined and left out of the result."""
    left = []
    for batch, events in groups:
        left.append((batch, kept := list[Event]()))
        for event in events:
            try:
                connection.exec_driver_sql(sql, _row(batch, event))
                kept.append(event)
            except (DBAPIError, OverflowError, UnicodeError) as error:
                if classify(error) != "constraint":
                    raise
                reason = f"row_refused: {getattr(error, 'orig', error)}"
                telemetry.row_rejected(event.symbol, event.feed, event.number, reason)
                set_aside(
                    connection, batch, event.symbol, event.feed, event.number, event.received_us, reason,
                    event.data.encode("utf-8", "surrogatepass"),
                )  # fmt: skip
                tallies.of(batch.epoch, event.symbol, event.feed, event.number).quarantined += 1
    return left
