"""One order book: sizes by price, both exactly as the venue wrote them. Decimal throughout, never float."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

#: (price, size, ...); what follows the size is the venue's own and is not looked at.
Level = Sequence[Any]


class Side:
    """Bids or asks. `sizes` by price; `prices` ascending."""

    __slots__ = ("_best", "prices", "sizes")

    def __init__(self, levels: Iterable[Level], *, bids: bool) -> None:
        self.sizes: dict[Decimal, Decimal] = {}
        for level in levels:
            if level[0] and level[1]:
                self.sizes[level[0]] = level[1]
            else:
                self.sizes.pop(level[0], None)
        self.prices = sorted(self.sizes)
        self._best = -1 if bids else 0

    def put(self, price: Decimal, size: Decimal) -> None:
        """Make `size` stand at `price`; 0 removes the level. A price of 0 is padding and means nothing."""
        if not price:
            return
        if size:
            if price not in self.sizes:
                insort(self.prices, price)
            self.sizes[price] = size
        elif self.sizes.pop(price, None) is not None:
            del self.prices[bisect_left(self.prices, price)]

    def best(self) -> Decimal | None:
        """The best price, None where the side is empty."""
        return self.prices[self._best] if self.prices else None

    def top(self, levels: int) -> list[tuple[Decimal, Decimal]]:
        """The best `levels` levels as (price, size), best first."""
        found = self.prices[:levels] if self._best == 0 else self.prices[: -levels - 1 : -1]
        return [(price, self.sizes[price]) for price in found]


class Book:
    """Both sides after a snapshot and the changes that followed it."""

    __slots__ = ("asks", "bids")

    def __init__(self, bids: Iterable[Level] = (), asks: Iterable[Level] = ()) -> None:
        self.bids = Side(bids, bids=True)
        self.asks = Side(asks, bids=False)

    def change(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Sizes that stand now, absolute."""
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for level in levels:
                side.put(level[0], level[1])

    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask: no market stands like that."""
        bid, ask = self.bids.best(), self.asks.best()
        return bid is not None and ask is not None and bid >= ask
