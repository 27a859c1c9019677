"""Which books of a connection have no snapshot to begin with, and which answer to a question over REST is one. Pure.

Some channels bring changes alone. A book of these is due with its first change, and again with the first one after a hole.
An answer joins them where it names a state that the changes received since then lead through: `U <= id + 1 <= u`. One that is
older is asked for again; one that is ahead waits for the changes to reach it.
"""

from __future__ import annotations

from app.connection.actions import Fetch
from app.exchanges.base import Decoded, Exchange, Subscription
from app.model import ORDERBOOK
from app.sequence import Verdict

#: One question at a time, and no two within this: an answer with a thousand levels costs the venue as much as fifty others.
ASK_EVERY_S = 1.0
#: After the first answer of no use a book is asked for again after the first of these, then after twice as long.
AGAIN_FIRST_S, AGAIN_LAST_S = 1.0, 60.0
#: An answer that is ahead of the changes is waited for so long.
AHEAD_S = 10.0


class _Due:
    """A book that is to begin: its changes lead from `first` to `last`."""

    __slots__ = ("ahead", "failures", "first", "last", "next_s")

    def __init__(self, first: int, last: int, now_s: float) -> None:
        self.first, self.last = first, last
        self.next_s = now_s
        self.failures = 0
        #: An answer that the changes have not reached yet, and when it came.
        self.ahead: tuple[Decoded, int] | None = None

    def later(self, now_s: float) -> None:
        self.next_s = now_s + min(AGAIN_FIRST_S * 2**self.failures, AGAIN_LAST_S)
        self.failures = min(self.failures + 1, 16)


class Snapshots:
    """The books of one connection; empty where the channel brings their snapshots."""

    def __init__(self, exchange: Exchange, subscription: Subscription) -> None:
        books = subscription.symbols if ORDERBOOK in subscription.feeds else ()
        self._symbols = frozenset(s for s in books if exchange.book_path(subscription, s) is not None)
        self._due: dict[str, _Due] = {}
        self._asked = ""
        self._next_s = 0.0

    def __contains__(self, symbol: str) -> bool:
        """Whether snapshots of this book are asked for."""
        return symbol in self._symbols

    def seen(self, event: Decoded, verdict: Verdict, now_s: float) -> list[tuple[Decoded, int]]:
        """A change of a book came. Returns the answer that it reaches, and when that came."""
        if event.feed != ORDERBOOK or event.symbol not in self._symbols or event.last is None or event.follows is None:
            return []
        if verdict in (Verdict.RESET, Verdict.GAP):
            self._due[event.symbol] = _Due(event.follows, event.last, now_s)
        due = self._due.get(event.symbol)
        if due is None or verdict in (Verdict.DUPLICATE, Verdict.OUT_OF_ORDER):
            return []
        due.last = event.last
        if due.ahead is None or due.ahead[0].last is None or due.ahead[0].last > due.last:
            return []
        del self._due[event.symbol]
        return [due.ahead]

    def fetches(self, now_s: float) -> list[Fetch]:
        """The question that may be asked by now, of the book that has waited longest."""
        if self._asked or now_s < self._next_s:
            return []
        symbol = min(self._due, key=lambda symbol: self._due[symbol].next_s, default="")
        if not symbol or self._due[symbol].next_s > now_s:
            return []
        self._asked, self._next_s = symbol, now_s + ASK_EVERY_S
        return [Fetch("book", symbol)]

    def answered(
        self, answer: Decoded | None, wait_s: float, received_us: int, now_s: float
    ) -> list[tuple[Decoded, int]]:
        """The answer to the question that was asked last; None: there was none, and nobody is to ask for `wait_s`.

        Returns it, and when it came, where the changes that were received lead through it.
        """
        symbol, self._asked = self._asked, ""
        due = self._due.get(symbol)
        if wait_s:
            self._next_s = now_s + wait_s
            return []
        if due is None:
            return []
        if answer is None or answer.last is None or answer.last < due.first:
            due.later(now_s)
            return []
        if answer.last > due.last:
            due.ahead, due.next_s = (answer, received_us), now_s + AHEAD_S
            return []
        del self._due[symbol]
        return [(answer, received_us)]
