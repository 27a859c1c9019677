"""The records that travel from a socket to an object. Plain values: they know nothing of Redis, SQLite or S3.

Everything here is a frozen `msgspec.Struct` written as an array, so that a batch in Redis is compact and a new trailing
field with a default can be read by older code. Fields are never reordered or retyped (docs/formats.md).

Times are microseconds since the Unix epoch, UTC. A time the exchange does not send is None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

ORDERBOOK = "orderbook"
TRADE = "trade"
#: Feed of a frame that could not be decoded: it still has a number, so it can be accounted for.
UNDECODED = "?"
#: Reason of the end of an epoch that did not say it itself: it was found out, and a real end takes its place.
UNCLEAN_END = "unclean_end"
#: Cause of a loss: pushed, and it never came out of Redis or the spool.
BUFFER_LOST = "buffer_lost"

#: What a user writes in `feeds`, and the data type under which it is stored.
FEEDS = {"orderbook": ORDERBOOK, "trades": TRADE}


class Market(msgspec.Struct, frozen=True, order=True):
    """One instrument on one exchange; `symbol` in the exchange's canonical spelling, from the configuration."""

    exchange: str
    symbol: str

    def __str__(self) -> str:
        return f"{self.exchange}/{self.symbol}"


class Event(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One order book frame or one trade, exactly as it is stored."""

    symbol: str
    feed: str
    #: 1, 2, 3, ... per (epoch, symbol, feed), given at receipt.
    number: int
    #: Unique per distinct event of (exchange, symbol, feed); see docs/exchanges.md.
    sequence_id: str
    received_us: int
    exchange_us: int | None
    #: The venue's own text, never re-serialised.
    data: str


class Quarantined(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A frame (or row) that could not be stored as what it claims to be; its bytes are kept."""

    symbol: str
    feed: str
    number: int
    received_us: int
    reason: str
    frame: bytes


class Loss(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Numbers first..last of a (symbol, feed) that were received and then given up, and why.

    `count` is None where the extent is not known (an epoch that ended without saying its last numbers).
    """

    symbol: str
    feed: str
    first: int
    last: int
    count: int | None
    start_us: int
    end_us: int
    cause: str


class Gap(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A proven hole in what the venue sent us: ids `from_id`..`to_id` never arrived on this feed.

    `size` is the number of missing ids, None where the venue's ids do not count one by one.
    """

    symbol: str
    feed: str
    #: Number of the event that showed the hole.
    number: int
    from_id: str
    to_id: str
    size: int | None
    before_us: int
    after_us: int
    cause: str


class Range(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Consecutive numbers first..last of one (symbol, feed) inside one batch."""

    symbol: str
    feed: str
    first: int
    last: int


class EpochEnd(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The last word of a connection: why it ended and the last number of each (symbol, feed)."""

    ended_us: int
    reason: str
    last_numbers: tuple[Range, ...]


class Repair(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What was found out later about a gap, which it names by epoch, symbol, feed and number. The newest one stands."""

    symbol: str
    feed: str
    #: Of the gap: the epoch that showed it, and `Gap.number`.
    epoch: str
    number: int
    found_us: int
    #: `repaired`, `partly` or `unrepairable`.
    state: str
    #: Ids that were missing and are stored now.
    found: int
    #: What remains, or why nothing can be done, in words.
    detail: str = ""


class Check(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The verdict on one interval of a feed: `kind` says what was looked at, `verdict` what was seen."""

    symbol: str
    feed: str
    kind: str
    start_us: int
    end_us: int
    #: `proved`, `broken` or `unknowable`.
    verdict: str
    checked_us: int
    detail: str = ""


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What one stream pushes at once: one element of its Redis list, immutable once numbered."""

    stream: str
    exchange: str
    #: 32 hex digits, made for each connection.
    epoch: str
    #: 1, 2, 3, ... within the epoch; (epoch, number) is the batch's identity for ever.
    number: int
    #: When the epoch's connection was opened.
    opened_us: int
    ranges: tuple[Range, ...] = ()
    events: tuple[Event, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    losses: tuple[Loss, ...] = ()
    gaps: tuple[Gap, ...] = ()
    end: EpochEnd | None = None
    #: Epochs of the same stream that were still going on when this one was opened: a planned change of connection.
    overlaps: tuple[str, ...] = ()
    #: `stream`: a connection; `rest`: events that were asked for; `finding`: no events, only what was found out.
    kind: str = "stream"
    repairs: tuple[Repair, ...] = ()
    checks: tuple[Check, ...] = ()
    #: The connection before this one of the same stream, if it was of the same process: who is named here, was there.
    after: str = ""


def runs(numbers: Iterable[tuple[str, str, int]]) -> Iterator[Range]:
    """United ranges of (symbol, feed, number) triples, each feed's numbers arriving in ascending order.

    >>> [(r.first, r.last) for r in runs([("a", "trade", 1), ("a", "trade", 2), ("a", "trade", 4)])]
    [(1, 2), (4, 4)]
    """
    open_runs: dict[tuple[str, str], list[int]] = {}
    for symbol, feed, number in numbers:
        run = open_runs.get((symbol, feed))
        if run is not None and number == run[1] + 1:
            run[1] = number
            continue
        if run is not None:
            yield Range(symbol, feed, *run)
        open_runs[symbol, feed] = [number, number]
    for (symbol, feed), run in open_runs.items():
        yield Range(symbol, feed, *run)
