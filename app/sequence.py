"""Continuity of a feed: did the venue send us everything it numbered? Pure, one verdict an event.

A venue's numbering is given by the exchange module as `follows` and `last` (app/exchanges/base.py). What the two mean is
the exchange's business; here they are only compared. Books live within one epoch: a new connection starts anew with a new
snapshot. Trade ids go on from one connection to the next, so a hole over a reconnect is seen: a connection that begins
takes up what the one before has seen (`join`), at once where that one is over, else when it ends. While both are open
each is judged by itself, because either may be a moment ahead of the other.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import NamedTuple

from app.exchanges.base import Decoded
from app.model import ORDERBOOK


class Verdict(Enum):
    OK = "ok"
    #: Starts anew: a snapshot, or the first event ever.
    RESET = "reset"
    GAP = "gap"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out_of_order"
    #: The venue's ids cannot tell.
    UNKNOWABLE = "unknowable"


class Hole(NamedTuple):
    """Ids `from_id`..`to_id` are missing; `size` None where ids do not count one by one. Times of the neighbours, us."""

    from_id: int
    to_id: int
    size: int | None
    before_us: int


class Continuity:
    """Last id per (symbol, feed), bounded: past `max_entries` the oldest entry is forgotten and counted."""

    def __init__(self, max_entries: int = 10_000) -> None:
        self._last: dict[tuple[str, str], tuple[int, int]] = {}
        #: `follows` and receive time of the first event of each feed that was judged without knowing one before it.
        self._first: dict[tuple[str, str], tuple[int, int]] = {}
        self._max_entries = max_entries
        self.evicted = 0
        #: How many events of (symbol, feed) were no progress, by verdict (DUPLICATE, OUT_OF_ORDER).
        self.irregular: Counter[tuple[str, str, Verdict]] = Counter()

    def join(self, before: Continuity) -> list[tuple[str, str, Hole, int]]:
        """Take up the trades of the connection before, which is over.

        Returns the holes between its last and our first event as (symbol, feed, hole, when ours was received).
        """
        holes = []
        for key, (last, last_us) in before._last.items():
            if key[1] == ORDERBOOK:
                continue
            if key not in self._last:
                self._last[key] = last, last_us
            elif key in self._first:
                follows, first_us = self._first[key]
                if follows > last:
                    holes.append((*key, Hole(last + 1, follows, follows - last, last_us), first_us))
        return holes

    def check(self, event: Decoded, received_us: int) -> tuple[Verdict, Hole | None]:
        """The verdict on the next event of its feed, and the hole where it is a gap."""
        last, follows = event.last, event.follows
        if last is None:
            return Verdict.UNKNOWABLE, None
        key = event.symbol, event.feed
        known = self._last.get(key)
        if known is None or follows is None:
            if known is None and len(self._last) >= self._max_entries:
                del self._last[next(iter(self._last))]
                self.evicted += 1
            self._last[key] = last, received_us
            if known is None and follows is not None and event.dense:
                self._first[key] = follows, received_us
            return Verdict.RESET, None
        before, before_us = known
        if follows == before:
            self._last[key] = last, received_us
            return Verdict.OK, None
        if last == before:
            self.irregular[*key, Verdict.DUPLICATE] += 1
            return Verdict.DUPLICATE, None
        if event.dense and last < before:
            self.irregular[*key, Verdict.OUT_OF_ORDER] += 1
            return Verdict.OUT_OF_ORDER, None
        self._last[key] = last, received_us
        if event.dense and follows < before:
            return Verdict.OK, None  # overlaps what is known and reaches further
        if event.dense:
            return Verdict.GAP, Hole(before + 1, follows, follows - before, before_us)
        return Verdict.GAP, Hole(before, follows, None, before_us)
