"""A seeded random market whose book and trades agree: a trade takes from the touch, and the book is never crossed.

Pure: randomness, time and first ids are given. Prices and sizes are integers (see `instruments`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import NamedTuple

from app.venues.instruments import Instrument
from app.venues.tape import Tape, Trade

BID, ASK = "bid", "ask"
#: (side, price) -> the size that stood there before the step.
Touched = dict[tuple[str, int], int]
#: Levels that a side may have more than it was made with, before the farthest are dropped.
SLACK = 20


class Change(NamedTuple):
    """The size now standing at a price, and the one before; 0: no such level."""

    side: str
    price: int
    size: int
    before: int


class Step(NamedTuple):
    """Everything that happened at once: trades in order, then every level whose size is another one now."""

    trades: list[Trade]
    changes: list[Change]


class Side:
    """One side of a book. Keys are prices for asks and negated prices for bids, so that the best is always first."""

    __slots__ = ("keys", "sign", "sizes")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.sizes: dict[int, int] = {}

    def put(self, price: int, size: int) -> None:
        """Make `size` stand at `price`; 0 removes the level."""
        key = self.sign * price
        if size:
            if key not in self.sizes:
                insort(self.keys, key)
            self.sizes[key] = size
        elif self.sizes.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def best(self) -> tuple[int, int]:
        """Price and size of the best level."""
        return abs(self.keys[0]), self.sizes[self.keys[0]]

    def top(self, levels: int) -> list[tuple[int, int]]:
        """The best `levels` levels as (price, size), best first."""
        sizes = self.sizes
        return [(abs(key), sizes[key]) for key in self.keys[:levels]]


def count_on(last_id: int, count: int, time_us: int) -> int:
    """The usual trade ids: each execution has the next number."""
    return last_id + count


class Market:
    """One instrument's book and tape.

    `update_id` counts every change of the book; `sequence` grows in jumps, with everything. `levels` (at least 20) are
    kept on each side. `max_count` above 1 makes trades that stand for several executions. `next_id` makes trade ids.
    """

    def __init__(
        self,
        instrument: Instrument,
        random: Random,
        levels: int,
        first_id: int,
        now_us: int,
        max_count: int = 1,
        next_id: Callable[[int, int, int], int] = count_on,
    ) -> None:
        self.instrument = instrument
        self.random = random
        self.levels = levels
        self.max_count = max_count
        self.next_id = next_id
        self.bids, self.asks = Side(-1), Side(1)
        self.update_id = self.sequence = 0
        self.trade_id = first_id
        self.tape = Tape()
        # Coarse instruments trade at every tick; one with millions of ticks has levels some ticks apart.
        self._spacing = max(1, instrument.price // instrument.tick // 100_000)
        for side, first in ((self.bids, -instrument.price), (self.asks, instrument.price + instrument.tick)):
            side.keys.append(first)
            side.sizes[first] = self._size()
        self._refill({})
        self.update_id, self.sequence = 10 * first_id, 100 * first_id
        self.last_trade = self._take({}, now_us, taker_buys=True)

    def step(self, trades: int, now_us: int) -> Step:
        """Let `trades` trades happen, then orders come and go."""
        touched: Touched = {}
        taker_buys = self.random.random() < self._demand()
        tape = [self._take(touched, now_us, taker_buys) for _ in range(trades)]
        for _ in range(self.random.randint(1, 5)):
            self._quote(touched)
        self._refill(touched)
        self.sequence += self.random.randint(1, 90)
        return Step(tape, list(self._changes(touched)))

    def _changes(self, touched: Touched) -> Iterator[Change]:
        for (side, price), before in touched.items():
            size = self.asks.sizes.get(price, 0) if side == ASK else self.bids.sizes.get(-price, 0)
            if size != before:
                yield Change(side, price, size, before)

    def _demand(self) -> float:
        """Chance that takers buy: less the dearer the market is, so that it wanders without running away."""
        drift = (self.bids.best()[0] - self.instrument.price) / self.instrument.price
        return min(0.9, max(0.1, 0.5 - 10 * drift))

    def _size(self) -> int:
        return max(1, int(self.instrument.lot * self.random.expovariate(1)))

    def _set(self, touched: Touched, side: Side, price: int, size: int) -> None:
        touched.setdefault((ASK if side is self.asks else BID, price), side.sizes.get(side.sign * price, 0))
        side.put(price, size)
        self.update_id += 1

    def _take(self, touched: Touched, now_us: int, taker_buys: bool) -> Trade:
        """A taker order against the best level, which it leaves smaller or empty."""
        random = self.random
        side = self.asks if taker_buys else self.bids
        price, standing = side.best()
        size = standing if random.random() < 0.15 else max(1, int(standing * random.random() ** 3))
        self._set(touched, side, price, standing - size)
        # No execution is of nothing.
        count = min(size, random.randint(1, self.max_count)) if self.max_count > 1 else 1
        self.trade_id = self.next_id(self.trade_id, count, now_us)
        self.sequence += random.randint(1, 60)
        self.last_trade = Trade(self.trade_id, count, price, size, taker_buys, now_us, self.sequence)
        self.tape.append(self.last_trade)
        return self.last_trade

    def _quote(self, touched: Touched) -> None:
        """One order is placed, changed or cancelled, mostly near the touch."""
        random, tick = self.random, self.instrument.tick
        side, other = (self.bids, self.asks) if random.random() < 0.5 else (self.asks, self.bids)
        key = side.keys[min(int(random.expovariate(0.3)), len(side.keys) - 1)]
        kind = random.random()
        if kind < 0.45:
            self._set(touched, side, abs(key), self._size())
        elif kind < 0.7:
            if len(side.keys) > self.levels // 2:
                self._set(touched, side, abs(key), 0)
        else:
            # In key space every side grows away from the touch; the other side's best is the negated wall.
            room = (side.keys[0] + other.keys[0]) // tick
            if room > 1:
                key = side.keys[0] - tick * random.randint(1, min(room - 1, self._spacing))
            else:
                key += tick
            if abs(key) >= tick:
                self._set(touched, side, abs(key), self._size())

    def _refill(self, touched: Touched) -> None:
        """Keep each side at its number of levels, at the far end."""
        tick = self.instrument.tick
        for side in (self.bids, self.asks):
            while len(side.keys) < self.levels:
                key = side.keys[-1] + tick * (1 + int(2 * self._spacing * self.random.random()))
                if side.sign * key < tick:
                    break
                touched.setdefault((ASK if side is self.asks else BID, abs(key)), 0)
                side.keys.append(key)
                side.sizes[key] = self._size()
                self.update_id += 1
            while len(side.keys) > self.levels + SLACK:
                self._set(touched, side, abs(side.keys[-1]), 0)


class Window:
    """The best `levels` levels of one side, as a venue shows them, and what changes among them."""

    def __init__(self, side: Side, levels: int) -> None:
        self.side, self.levels = side, levels
        self.begin()

    def begin(self) -> None:
        """Show the side as it is now."""
        self._edge = self._last()

    def shown(self) -> list[tuple[int, int]]:
        """(price, size), best first."""
        return self.side.top(self.levels)

    def move(self, changes: Iterable[Change]) -> list[tuple[int, int]]:
        """What turns the levels shown before into those shown now: (price, size), best first; 0 removes.

        `changes` are all changes of this side since. A level also comes and goes when others make or leave it room.
        """
        before, self._edge = self._edge, self._last()
        now, sign, keys, sizes = self._edge, self.side.sign, self.side.keys, self.side.sizes
        moved: dict[int, int] = {}
        changed = set()
        for change in changes:
            key = sign * change.price
            changed.add(key)
            if change.size and key <= now:
                moved[key] = change.size
            elif change.before and key <= before:
                moved[key] = 0
        for key in keys[bisect_right(keys, min(before, now)) : bisect_right(keys, max(before, now))]:
            if key not in changed:
                moved[key] = sizes[key] if now > before else 0
        return [(abs(key), size) for key, size in sorted(moved.items())]

    def _last(self) -> int:
        return self.side.keys[min(self.levels, len(self.side.keys)) - 1]
