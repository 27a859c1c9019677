"""The trades of a market, the newest 50,000 of them at least: what a venue's REST can still tell. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

#: Trades that are kept; up to twice as many are, in 56 bytes each.
KEPT = 50_000


class Trade(NamedTuple):
    """What one taker order took at one price."""

    id: int
    #: Executions in it; the venue's ids advance by this many.
    executions: int
    price: int
    size: int
    taker_buys: bool
    time_us: int
    sequence: int


WIDTH = len(Trade._fields)


class Tape:
    """Trades in the order of their ids, which only grow."""

    def __init__(self, kept: int = KEPT) -> None:
        self.kept = kept
        self._numbers = array("q")

    def __len__(self) -> int:
        return len(self._numbers) // WIDTH

    def __getitem__(self, index: int) -> Trade:
        number, executions, price, size, taker_buys, time_us, sequence = self._numbers[
            WIDTH * index : WIDTH * (index + 1)
        ]
        return Trade(number, executions, price, size, bool(taker_buys), time_us, sequence)

    def append(self, trade: Trade) -> None:
        """Keep it; now and then the oldest are forgotten."""
        self._numbers.extend(trade)
        if len(self) >= 2 * self.kept:
            del self._numbers[: -WIDTH * self.kept]

    def place(self, trade_id: int) -> int:
        """How many trades have a smaller id: the index of the first one from there on."""
        return bisect_left(range(len(self)), trade_id, key=lambda index: self._numbers[WIDTH * index])

    def between(self, first: int, last: int) -> list[Trade]:
        """The trades at the indexes from `first` up to and without `last`."""
        return [self[index] for index in range(max(0, first), min(last, len(self)))]

    def newest_first(self, below_id: int | None = None) -> Iterator[Trade]:
        """From the newest, or the newest below an id, back to the oldest."""
        for index in range((len(self) if below_id is None else self.place(below_id)) - 1, -1, -1):
            yield self[index]
