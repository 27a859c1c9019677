"""Verdicts on one market's book: rows in, `Check` records out, neighbours with the same verdict united."""

from __future__ import annotations

from collections import Counter

from app.books.agreement import LEVELS, differences
from app.books.change import Change, RestBook, Row
from app.books.rebuild import Applied, Continuity, Rebuild, Verdict
from app.books.venues import VENUES
from app.model import ORDERBOOK, Check

#: A verdict that stays the same is one record for each such stretch of time, counted from the Unix epoch.
UNITED_US = 600 * 1_000_000
#: An answer that no stored row has reached by then is not waited for any longer.
PATIENCE_US = 300 * 1_000_000

PROVED, BROKEN, UNKNOWABLE = "proved", "broken", "unknowable"
_SAID = {
    # A point: whatever comes next is compared with it.
    Continuity.START: PROVED,
    Continuity.PROVED: PROVED,
    Continuity.BROKEN: BROKEN,
    Continuity.UNKNOWABLE: UNKNOWABLE,
}


class Verdicts:
    """Intervals of one kind, in the order they were seen; what was seen before `after_us` is not said again."""

    def __init__(self, symbol: str, kind: str, after_us: int = 0) -> None:
        self._symbol, self._kind, self._after_us = symbol, kind, after_us
        self._open: list[int] | None = None
        self._verdict = self._detail = ""
        self._closed: list[tuple[str, int, int, str]] = []

    def see(self, verdict: str, start_us: int, end_us: int, detail: str = "") -> None:
        """`verdict` from `start_us` to `end_us`. The detail of the first one of an interval stands."""
        start_us, end_us = min(start_us, end_us), max(start_us, end_us)
        interval = self._open
        if interval is not None:
            if (
                verdict == self._verdict
                and start_us <= interval[1]
                and end_us // UNITED_US == interval[1] // UNITED_US
                and bool(detail) == bool(self._detail)
            ):
                interval[0], interval[1] = min(start_us, interval[0]), max(end_us, interval[1])
                return
            self.close()
        self._open, self._verdict, self._detail = [start_us, end_us], verdict, detail

    def apart(self, verdict: str, start_us: int, end_us: int, detail: str) -> None:
        """A verdict on an interval that is past."""
        self._closed.append((verdict, min(start_us, end_us), max(start_us, end_us), detail))

    def close(self) -> None:
        """Unite nothing more with the last interval."""
        if self._open is not None:
            self._closed.append((self._verdict, self._open[0], self._open[1], self._detail))
            self._open = None

    def take(self, now_us: int, *, final: bool = False) -> list[Check]:
        """What is settled, once; an interval that grows is settled when its stretch of time is over, or all is."""
        if final or (self._open is not None and now_us // UNITED_US > self._open[1] // UNITED_US):
            self.close()
        begun: Counter[int] = Counter()
        checks = []
        for verdict, start_us, end_us, detail in self._closed:
            if end_us > self._after_us:
                start_us = max(start_us, self._after_us)
                # Kind, start and time of the verdict name a record: no two of them may be equal.
                checked_us = now_us + begun[start_us]
                begun[start_us] += 1
                checks.append(Check(self._symbol, ORDERBOOK, self._kind, start_us, end_us, verdict, checked_us, detail))
        self._closed = []
        return checks


class Judge:
    """One market. `known` are the ends of what is on record already, by kind, in microseconds."""

    def __init__(self, exchange: str, symbol: str, known: dict[str, int] | None = None) -> None:
        known = known or {}
        self.rebuild = Rebuild(exchange, symbol)
        self._venue = VENUES[exchange]
        self._continuity, self._crossed, self._rest = (
            Verdicts(symbol, kind, known.get(kind, 0)) for kind in ("continuity", "crossed", "rest")
        )
        self._asked: tuple[RestBook, int] | None = None
        self._missing: dict[tuple[str, int], tuple[int, str]] = {}
        self._at_us = 0

    def missing(self, epoch: str, before_us: int, after_us: int, detail: str) -> None:
        """A record of a gap or a loss: rows of `epoch` received from `after_us` on miss something before them."""
        if after_us > self._at_us:
            self._missing.setdefault((epoch, after_us), (before_us, detail))

    def row(self, row: Row) -> Applied:
        """Judge the next row."""
        us = row.timestamp_collector
        broken = self._break_off(row) if self._missing else None
        try:
            change = self.rebuild.read(row)
            if self._asked is not None:
                self._between(change, us)
            applied = self.rebuild.take(change, row)
        except (ValueError, ArithmeticError, TypeError) as error:
            applied = self.rebuild.unreadable(row, str(error))
        self._at_us = max(self._at_us, us)
        if applied.verdict is Verdict.OLDER:
            if applied.continuity is Continuity.PROVED:
                self._continuity.see(PROVED, applied.before_us, us)
            return applied
        if broken is not None and applied.continuity is Continuity.UNKNOWABLE:
            self._continuity.see(BROKEN, broken[0], us, broken[1])
        elif applied.continuity in _SAID:
            self._continuity.see(_SAID[applied.continuity], applied.before_us, us, _worth(applied))
        for seam in self.rebuild.decided:
            self._continuity.apart(PROVED if seam.joined else BROKEN, seam.before_us, seam.after_us, seam.detail)
        self.rebuild.decided.clear()
        book = self.rebuild.book
        if book is None:
            self._crossed.see(UNKNOWABLE, applied.before_us, us, applied.detail)
        elif book.crossed():
            words = f"bid {book.bids.best()}, ask {book.asks.best()}"
            self._crossed.see(BROKEN, applied.before_us, us, words)
        else:
            self._crossed.see(PROVED, applied.before_us, us)
        if self._asked is not None:
            self._reached(us)
        return applied

    def answered(self, rest: RestBook, asked_us: int) -> None:
        """A venue's answer; it is compared when the stored rows have come to its number."""
        self._asked = rest, asked_us
        if rest.number is None:
            self._agree(UNKNOWABLE, "the answer does not say which change it includes")
        else:
            self._reached(asked_us)

    def take(self, now_us: int, *, final: bool = False) -> list[Check]:
        """Checks that are settled by now, each once; with `final` nothing comes after these."""
        if self._asked is not None and (final or now_us - self._asked[1] > PATIENCE_US):
            self._agree(UNKNOWABLE, "no row came to its number")
        kinds = self._continuity, self._crossed, self._rest
        return [check for kind in kinds for check in kind.take(now_us, final=final)]

    def _break_off(self, row: Row) -> tuple[int, str] | None:
        due = [key for key in self._missing if key[0] == row.epoch and key[1] <= row.timestamp_collector]
        found = None
        for key in due:
            found = self._missing.pop(key)
            self.rebuild.break_off(row.epoch)
        return found

    def _between(self, change: Change, us: int) -> None:
        """The answer may name a state before this change and after the one before."""
        assert self._asked is not None
        rest, number = self._asked[0], self.rebuild.number
        if change.whole or rest.number is None or number is None or change.number is None:
            return
        if number < rest.number < change.number:
            if self.rebuild.book is None:
                self.rebuild.begin_with(rest)
                self._agree(UNKNOWABLE, "there was no book to compare; it begins with this answer")
            else:
                self._compare(rest, change)

    def _reached(self, us: int) -> None:
        assert self._asked is not None
        rest, number = self._asked[0], self.rebuild.number
        if number is None or rest.number is None or number < rest.number:
            return
        if number > rest.number:
            self._agree(UNKNOWABLE, f"no row with its number {rest.number}, the record is at {number}")
        elif self.rebuild.book is None:
            self.rebuild.begin_with(rest)
            self._agree(UNKNOWABLE, "there was no book to compare; it begins with this answer")
        elif not self._venue.ambiguous or not differences(self.rebuild.book, rest):
            self._compare(rest)

    def _compare(self, rest: RestBook, next_change: Change | None = None) -> None:
        assert self.rebuild.book is not None
        found = differences(self.rebuild.book, rest, next_change)
        if found:
            self._agree(BROKEN, f"{len(found)} levels differ at {rest.number}: {'; '.join(found[:3])}")
        else:
            self._agree(PROVED, f"best {LEVELS} levels")

    def _agree(self, verdict: str, detail: str) -> None:
        assert self._asked is not None
        asked_us = self._asked[1]
        self._asked = None
        self._rest.see(verdict, asked_us, asked_us, detail)


def _worth(applied: Applied) -> str:
    """Words where they say more than the verdict."""
    if applied.continuity in (Continuity.START, Continuity.PROVED):
        return ""
    return applied.detail or "the venue numbers nothing here"
