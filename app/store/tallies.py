"""What became of the events of one transaction, range by range of their numbers, and the rows that say so."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection

from app.model import Batch, Event, Range


@dataclass
class Counts:
    """What became of the events of a claim."""

    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    replays: int = 0

    def add(self, other: Counts) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Tally:
    """A run of numbers of one (epoch, symbol, feed) and its outcomes."""

    exchange: str
    first: int
    last: int
    #: The events that bear these numbers; None where they are quarantined frames.
    head: Event | None
    tail: Event | None
    counts: Counts = field(default_factory=Counts)


class Tallies:
    """The runs of each (epoch, symbol, feed), in order."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str, str], list[Tally]] = {}

    def add(self, batch: Batch, added: Range, head: Event | None, tail: Event | None) -> None:
        runs = self.runs.setdefault((batch.epoch, added.symbol, added.feed), [])
        if runs and runs[-1].last + 1 == added.first:
            runs[-1].last, runs[-1].tail = added.last, tail
        else:
            runs.append(Tally(batch.exchange, added.first, added.last, head, tail))

    def of(self, epoch: str, symbol: str, feed: str, number: int) -> Counts:
        return next(t.counts for t in self.runs[epoch, symbol, feed] if t.first <= number <= t.last)


def write_ranges(connection: Connection, tallies: Tallies) -> None:
    """Write the tallies: prolong the range that ends just before, else begin one."""
    for (epoch, symbol, feed), runs in tallies.runs.items():
        for tally in runs:
            c = tally.counts
            numbers = (c.stored, c.duplicates, c.conflicts, c.quarantined)
            tail = (tally.tail.sequence_id, tally.tail.received_us) if tally.tail else (None, None)
            prolonged = connection.exec_driver_sql(
                "UPDATE ranges SET last = ?, stored = stored + ?, duplicates = duplicates + ?,"
                " conflicts = conflicts + ?, quarantined = quarantined + ?, last_id = ?, last_us = ?"
                " WHERE epoch = ? AND symbol = ? AND feed = ? AND last = ?",
                (tally.last, *numbers, *tail, epoch, symbol, feed, tally.first - 1),
            )
            if prolonged.rowcount == 0:
                head = (tally.head.sequence_id, tally.head.received_us) if tally.head else (None, None)
                connection.exec_driver_sql(
                    "INSERT INTO ranges (epoch, exchange, symbol, feed, first, last, stored, duplicates, conflicts,"
                    " quarantined, first_id, first_us, last_id, last_us)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (epoch, tally.exchange, symbol, feed, tally.first, tally.last, *numbers, *head, *tail),
                )
