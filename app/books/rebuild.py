"""Rows of one market, in the order they were stored, -> its book after each of them; it refuses to cross a hole.

Where a venue numbers its changes, numbers decide what follows what, whichever connection a row came by: two connections that
overlap bring every change twice, it is stored once, and the series of both is read as one. Where it does not (Coinbase), a
change follows within its epoch alone. A snapshot starts a series; a change that continues none begins a series without a
book, which waits for the next snapshot while its numbers are checked on.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple

from app.books.book import Book
from app.books.change import Change, RestBook, Row
from app.books.venues import VENUES

#: Two connections of one market overlap for seconds; their series are held side by side no longer than this.
OVERLAP_US = 60 * 1_000_000
#: Of two connections that are open together one is not behind the other for longer. After it a lower number is no older one.
LAG_US = 5 * 1_000_000
#: Changes that a series without a book keeps, for a snapshot that is still being asked for.
HELD = 2_000
#: Changes that a series looks back over, to know the snapshot of a slower connection again.
REMEMBERED = 2_000


class Verdict(Enum):
    """What a row did to the book."""

    SNAPSHOT = "snapshot"
    DELTA = "delta"
    #: Older than the book, which has it already.
    OLDER = "older"
    #: There is no book now; `detail` says why.
    REFUSED = "refused"


class Continuity(Enum):
    """Whether anything is missing between a row and the one before it."""

    #: The first row ever seen: nothing to compare with.
    START = "start"
    PROVED = "proved"
    BROKEN = "broken"
    #: It follows nothing yet; the other connection may still bring what lies between. See `Rebuild.decided`.
    PENDING = "pending"
    UNKNOWABLE = "unknowable"


class Applied(NamedTuple):
    """What one row came to. `before_us`: receive time of the row it was compared with."""

    verdict: Verdict
    continuity: Continuity
    before_us: int
    detail: str = ""


class Seam(NamedTuple):
    """A place where two series met: joined or not, and the receive times on both sides."""

    joined: bool
    before_us: int
    after_us: int
    detail: str


class _Series:
    """Changes that follow one another, and the book they make; `book` None: no snapshot yet."""

    __slots__ = ("asked", "at_us", "book", "dense", "epoch", "held", "last", "number", "passed", "start")

    def __init__(self, epoch: str, change: Change, at_us: int, book: Book | None) -> None:
        self.epoch, self.at_us, self.book = epoch, at_us, book
        self.last, self.number = change.last, change.number
        self.asked, self.dense = change.asked, change.dense
        #: Where it begins: a series that reached this number knows everything this one does not.
        self.start = change.last if change.whole else change.follows
        #: Numbers it stood at before the last one.
        self.passed: deque[int | None] = deque(maxlen=REMEMBERED)
        #: While there is no book, the latest changes: what each follows, and its text.
        self.held: deque[tuple[int, str]] = deque(maxlen=HELD)

    def takes(self, change: Change) -> bool:
        if self.last is None or change.follows is None or change.last is None:
            return False
        return change.follows <= self.last < change.last if self.asked else change.follows == self.last

    def hold(self, change: Change, data: str) -> None:
        """Keep a change for a snapshot that comes after it."""
        if self.book is None and change.follows is not None:
            self.held.append((change.follows, data))

    def leads_through(self, number: int) -> bool:
        """Whether the book of this number, and what changed since, would be the book now."""
        first = self.start if self.book is not None else self.held[0][0] if self.held else self.last
        return first is not None and self.last is not None and first <= number <= self.last

    def add(self, change: Change, at_us: int) -> None:
        if self.book is not None:
            self.book.change(change.bids, change.asks)
        self.passed.append(self.last)
        self.last, self.number, self.at_us, self.asked = change.last, change.number, at_us, False


class Rebuild:
    """The book of one market. `apply` every row of its order book feed, in stored order."""

    def __init__(self, exchange: str, symbol: str) -> None:
        self._read, self._asks = VENUES[exchange].read, VENUES[exchange].asks
        self._name, self._symbol = f"{exchange}/{symbol}", symbol
        self._series: list[_Series] = []
        self._current: _Series | None = None
        self._seam: tuple[_Series, int, int, str] | None = None
        #: Seams that were pending and are decided now; whoever reads them takes them off.
        self.decided: list[Seam] = []

    @property
    def book(self) -> Book | None:
        """The book after the last row; None where there is none that could be right."""
        return None if self._current is None else self._current.book

    @property
    def number(self) -> int | None:
        """By which a REST answer would name this state."""
        return None if self._current is None else self._current.number

    def read(self, row: Row) -> Change:
        """What the row says. Raises: ValueError with a sentence."""
        return self._read(row.data, self._symbol)

    def apply(self, row: Row) -> Applied:
        """Take the next row into the book, or refuse it and have no book until the next snapshot."""
        try:
            return self.take(self.read(row), row)
        except (ValueError, ArithmeticError, TypeError) as error:  # the last two: sizes such as NaN
            return self.unreadable(row, str(error))

    def take(self, change: Change, row: Row) -> Applied:
        """`apply` for a row that was read already. Raises: ArithmeticError, TypeError for what is no number."""
        us = row.timestamp_collector
        applied = self._snapshot(change, row) if change.whole else self._delta(change, row)
        if self._seam is not None and us - self._seam[2] > OVERLAP_US:
            self._decide(joined=False)
        self._series = [s for s in self._series if s is self._current or us - s.at_us <= OVERLAP_US][-3:]
        return applied

    def unreadable(self, row: Row, why: str) -> Applied:
        """A row whose content cannot be known: without it there is no book."""
        self.break_off(row.epoch)
        before_us = row.timestamp_collector if self._current is None else self._current.at_us
        return Applied(Verdict.REFUSED, Continuity.UNKNOWABLE, before_us, f"unreadable: {why}")

    def break_off(self, epoch: str) -> None:
        """Something of this epoch is missing, says a record of its own: no book until its next snapshot."""
        for series in self._series:
            if series.epoch == epoch:
                series.book = None

    def begin_with(self, rest: RestBook) -> None:
        """Give the current series, which has none, the book of a REST answer that names its state."""
        if self._current is not None and self._current.book is None:
            self._current.book = Book(rest.bids, rest.asks)

    def _snapshot(self, change: Change, row: Row) -> Applied:
        us, last = row.timestamp_collector, change.last
        series = _Series(row.epoch, change, us, Book(change.bids, change.asks))
        before_us = max((s.at_us for s in self._series), default=us)
        if last is None:
            if self._behind(change, row):
                return Applied(Verdict.OLDER, Continuity.UNKNOWABLE, before_us)
            applied = Applied(Verdict.SNAPSHOT, Continuity.UNKNOWABLE, before_us)
        elif change.asked:
            return self._asked_for(change, row, series, last)
        elif not self._series:
            applied = Applied(Verdict.SNAPSHOT, Continuity.START, us)
        elif any(s.last == last or (s.dense and s.last == last - 1) for s in self._series):
            applied = Applied(Verdict.SNAPSHOT, Continuity.PROVED, before_us)
        elif any(s.epoch != row.epoch and last in s.passed for s in self._series):
            self._series = [series, *(s for s in self._series if s.epoch != row.epoch)]
            return Applied(Verdict.OLDER, Continuity.PROVED, before_us)
        elif change.dense and last == 1:
            words = "the venue restarted: its numbers begin anew"
            applied = Applied(Verdict.SNAPSHOT, Continuity.UNKNOWABLE, before_us, words)
        else:
            applied = Applied(Verdict.SNAPSHOT, *self._unjoined(series, before_us, us))
        self._series = [s for s in self._series if s.epoch != row.epoch] + [series]
        self._current = series
        return applied

    def _asked_for(self, change: Change, row: Row, asked: _Series, number: int) -> Applied:
        """A snapshot that was asked for is no part of what the venue sends by itself: changes may be ahead of it."""
        us = row.timestamp_collector
        through = [s for s in self._series if s.leads_through(number)]
        if with_book := [s for s in through if s.book is not None]:
            return Applied(Verdict.OLDER, Continuity.PROVED, with_book[-1].at_us)
        if through:
            series = through[-1]
            book = Book(change.bids, change.asks)
            for later in (self._read(data, self._symbol) for _, data in series.held):
                if later.last is not None and later.last > number:
                    book.change(later.bids, later.asks)
            series.book, self._current = book, series
            series.held.clear()
            return Applied(Verdict.SNAPSHOT, Continuity.PROVED, series.at_us)
        if any(s.epoch == row.epoch and s.last is not None and number < s.last for s in self._series):
            words = "older than the changes that could be applied to it"
            return Applied(Verdict.REFUSED, Continuity.UNKNOWABLE, us, words)
        self._series.append(asked)
        self._current = asked
        return Applied(Verdict.SNAPSHOT, Continuity.UNKNOWABLE, us)

    def _behind(self, change: Change, row: Row) -> bool:
        """Whether the other connection has brought a later book already than this whole one."""
        now = self._current
        if now is None or now.epoch == row.epoch or now.number is None or change.number is None:
            return False
        return change.number < now.number and row.timestamp_collector - now.at_us <= LAG_US

    def _delta(self, change: Change, row: Row) -> Applied:
        us = row.timestamp_collector
        own = next((s for s in self._series if s.epoch == row.epoch), None)
        if change.last is None:
            before_us = us if own is None else own.at_us
            self._current = own
            if own is None or own.book is None:
                if own is not None:
                    own.at_us = us
                return Applied(Verdict.REFUSED, Continuity.UNKNOWABLE, before_us, "no snapshot before it in its epoch")
            own.add(change, us)
            return Applied(Verdict.DELTA, Continuity.UNKNOWABLE, before_us)
        takers = [s for s in self._series if s.takes(change)]
        if not takers:
            return self._stray(change, row, own)
        before_us = max(s.at_us for s in takers)
        for series in takers:
            series.add(change, us)
            if self._asks:
                series.hold(change, row.data)
        if own not in takers:  # the series of the other connection goes on with this one's changes
            self._series = [s for s in self._series if s is not own]
            if self._seam is not None and self._seam[0] is own:
                self._decide(joined=True)
            takers[-1].epoch = row.epoch
        with_book = [s for s in takers if s.book is not None]
        self._current = self._furthest((with_book or takers)[-1])
        if self._seam is not None:
            begun = self._seam[0]
            if any(s is not begun and _reached(s, begun) for s in takers):
                self._decide(joined=True)
        if not with_book:
            return Applied(Verdict.REFUSED, Continuity.PROVED, before_us, "no snapshot to begin with")
        return Applied(Verdict.DELTA, Continuity.PROVED, before_us)

    def _furthest(self, taker: _Series) -> _Series:
        """`taker`, or the current series where that began later: until both have met, the older one is behind it."""
        current = self._current
        if current is None or current.book is None or current not in self._series:
            return taker
        return max(taker, current, key=self._series.index)

    def _stray(self, change: Change, row: Row, own: _Series | None) -> Applied:
        """A change that continues nothing: older than what is known, or something before it is missing."""
        us, last = row.timestamp_collector, change.last
        assert last is not None
        for s in self._series:
            other = change.dense and s.epoch != row.epoch and us - s.at_us <= OVERLAP_US
            if s.last is not None and last <= s.last and (s.asked or other):
                return Applied(Verdict.OLDER, Continuity.UNKNOWABLE, us)
        series = _Series(row.epoch, change, us, None)
        if self._asks:
            series.hold(change, row.data)
        before_us = max((s.at_us for s in self._series), default=us)
        if not self._series:
            continuity, words = Continuity.START, "no snapshot to begin with"
        else:
            continuity, before_us, words = self._unjoined(series, before_us, us, own)
        self._series = [s for s in self._series if s is not own] + [series]
        self._current = series
        return Applied(Verdict.REFUSED, continuity, before_us, words)

    def _unjoined(
        self, series: _Series, before_us: int, after_us: int, own: _Series | None = None
    ) -> tuple[Continuity, int, str]:
        """The verdict on a series that begins after another one: pending while the other connection may fill it."""
        others = [s for s in self._series if s.epoch != series.epoch]
        known = own or next((s for s in self._series if s.epoch == series.epoch), None) or others[-1]
        words = f"{self._name}: nothing between {known.last} and {series.start} was stored"
        if self._seam is not None:
            self._decide(joined=False)
        if any(after_us - s.at_us <= OVERLAP_US for s in others):
            self._seam = series, before_us, after_us, words
            return Continuity.PENDING, before_us, words
        return Continuity.BROKEN, before_us, words

    def _decide(self, *, joined: bool) -> None:
        assert self._seam is not None
        _, before_us, after_us, words = self._seam
        self.decided.append(Seam(joined, before_us, after_us, "" if joined else words))
        self._seam = None


def _reached(series: _Series, begun: _Series) -> bool:
    """Whether `series` has come to where `begun` started, or stands where it stands."""
    if series.last is None or begun.start is None:
        return False
    return series.last in (begun.start, begun.last) or (series.dense and series.last >= begun.start)
