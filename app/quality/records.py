"""What every station says of the numbers it holds, in one shape: what balance and reckoning judge. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from app.model import UNCLEAN_END, Batch

#: Where numbers can be, in the order of the path. An object is `archived` when its bytes in the store were proved.
SPOOL, REDIS, SEGMENT, ARCHIVED = "spool", "redis", "segment", "archived"
PLACES = (SPOOL, REDIS, SEGMENT, ARCHIVED)

#: symbol, feed
Feed = tuple[str, str]
#: epoch, symbol, feed
Key = tuple[str, str, str]


class Epoch(NamedTuple):
    """One connection, as far as it is known."""

    id: str
    stream: str
    exchange: str
    opened_us: int
    kind: str = "stream"
    overlaps: tuple[str, ...] = ()
    ended_us: int | None = None
    reason: str | None = None
    last_numbers: tuple[tuple[Feed, int], ...] = ()
    #: The connection before it, of the same stream and process; "" where it was the first, or nobody said.
    after: str = ""

    @property
    def said_its_end(self) -> bool:
        """Whether the connection itself said its last numbers."""
        return self.reason is not None and self.reason != UNCLEAN_END


class Run(NamedTuple):
    """Consecutive numbers at one place; what became of their events where that is decided (segments and objects)."""

    place: str
    exchange: str
    epoch: str
    symbol: str
    feed: str
    first: int
    last: int
    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    first_us: int | None = None
    last_us: int | None = None


class Lost(NamedTuple):
    """Numbers declared lost; `size` None: from `first` on, nobody knows how many."""

    exchange: str
    epoch: str
    symbol: str
    feed: str
    first: int
    last: int
    size: int | None
    start_us: int
    end_us: int
    cause: str


@dataclass
class Records:
    """All that was read. The same thing read twice on its way does no harm."""

    epochs: dict[str, Epoch] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    losses: set[Lost] = field(default_factory=set)
    #: Numbers that came again, per (exchange, symbol, feed).
    replays: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def add_epoch(self, epoch: Epoch) -> None:
        """An epoch, or more about a known one: what it said itself counts before what was found out about it."""
        known = self.epochs.setdefault(epoch.id, epoch)
        if known.kind == "finding" != epoch.kind:
            known = known._replace(
                kind=epoch.kind, overlaps=epoch.overlaps, after=epoch.after, opened_us=epoch.opened_us
            )
        if epoch.reason is not None and not known.said_its_end:
            known = known._replace(ended_us=epoch.ended_us, reason=epoch.reason, last_numbers=epoch.last_numbers)
        self.epochs[epoch.id] = known

    def add_batch(self, batch: Batch, place: str) -> None:
        """What a batch that is under way says."""
        last = tuple(((r.symbol, r.feed), r.last) for r in batch.end.last_numbers) if batch.end else ()
        ended_us, reason = (batch.end.ended_us, batch.end.reason) if batch.end else (None, None)
        self.add_epoch(
            Epoch(batch.epoch, batch.stream, batch.exchange, batch.opened_us, batch.kind, batch.overlaps, ended_us,
                  reason, last, batch.after)
        )  # fmt: skip
        self.runs += (Run(place, batch.exchange, batch.epoch, r.symbol, r.feed, r.first, r.last) for r in batch.ranges)
        self.losses |= {
            Lost(batch.exchange, batch.epoch, x.symbol, x.feed, x.first, x.last, x.count, x.start_us, x.end_us, x.cause)
            for x in batch.losses
        }

    def by_key(self) -> dict[Key, tuple[list[Run], list[Lost]]]:
        """Runs and losses of each (epoch, symbol, feed), and of each that an epoch's end names."""
        found: dict[Key, tuple[list[Run], list[Lost]]] = {}
        for run in self.runs:
            found.setdefault((run.epoch, run.symbol, run.feed), ([], []))[0].append(run)
        for loss in self.losses:
            found.setdefault((loss.epoch, loss.symbol, loss.feed), ([], []))[1].append(loss)
        for epoch in self.epochs.values():
            for (symbol, feed), _ in epoch.last_numbers:
                found.setdefault((epoch.id, symbol, feed), ([], []))
        return found
