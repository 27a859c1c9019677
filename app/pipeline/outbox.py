"""The bounded memory queue between the thread that reads a socket and the thread that talks to Redis.

The only place where Collector gives up received data. A full queue refuses the newest, market by market: while a market
holds less than its fair share it is never refused, so one market's flood cannot take another's place. What is refused is
declared as a `Loss` in the next batch. Nothing here blocks the reader.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from app.model import Batch, EpochEnd, Event, Gap, Loss, Quarantined, runs

Unit = Event | Quarantined | Gap

#: What a record takes beside its text, roughly.
OVERHEAD_BYTES = 200


class Allowance:
    """Bytes all queues of a process may hold together. Shared by its streams."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.held_bytes += size


class Epoch(NamedTuple):
    """One connection, as its batches name it."""

    id: str
    opened_us: int


class _Section:
    """The queued units of one epoch."""

    __slots__ = ("batches", "end", "epoch", "losses", "units")

    def __init__(self, epoch: Epoch) -> None:
        self.epoch = epoch
        self.units: deque[tuple[Unit, int]] = deque()
        self.losses: dict[tuple[str, str], Loss] = {}
        self.end: EpochEnd | None = None
        self.batches = 0


class Outbox:
    """Units in, batches out. One reader thread adds, one sender thread takes."""

    def __init__(
        self,
        stream: str,
        exchange: str,
        markets: int,
        *,
        max_bytes: int,
        guaranteed_bytes: Callable[[], int] | None = None,
        allowance: Allowance,
        max_events: int,
    ) -> None:
        self._stream, self._exchange = stream, exchange
        self._max_bytes = max_bytes
        #: What the markets together may hold although the queues are full, and how many share it.
        self._guaranteed_bytes, self._markets = guaranteed_bytes or (lambda: max_bytes), max(markets, 1)
        self._allowance = allowance
        self._max_events = max_events
        self._sections: deque[_Section] = deque()
        self._by_symbol: dict[str, int] = {}
        self._held_bytes = 0
        self._queued = 0
        self._ready = threading.Condition()
        self._closed = False
        #: Units refused so far, for logs and metrics; the truth is in the losses.
        self.refused = 0

    @property
    def queued(self) -> int:
        """Units waiting."""
        return self._queued

    @property
    def batch_waits(self) -> bool:
        """Whether a full batch could be taken."""
        return self._queued >= self._max_events

    def begin(self, epoch: Epoch) -> None:
        """What is added from now on belongs to `epoch`. Its first batch goes out at once, so the epoch is on record."""
        with self._ready:
            self._sections.append(_Section(epoch))
            self._ready.notify()

    def add(self, unit: Unit) -> bool:
        """Queue a unit; False when it was refused, and its number is declared lost."""
        if type(unit) is Event:
            size = len(unit.data) + OVERHEAD_BYTES
        elif type(unit) is Quarantined:
            size = len(unit.frame) + OVERHEAD_BYTES
        else:
            size = OVERHEAD_BYTES
        with self._ready:
            section = self._sections[-1]
            held = self._by_symbol.get(unit.symbol, 0)
            full = (
                self._held_bytes + size > self._max_bytes
                or self._allowance.held_bytes + size > self._allowance.max_bytes
            )
            if full and held and held + size > self._guaranteed_bytes() // self._markets and not isinstance(unit, Gap):
                self.refused += 1
                self._declare(section, unit)
                return False
            section.units.append((unit, size))
            self._by_symbol[unit.symbol] = held + size
            self._held_bytes += size
            self._allowance.add(size)
            self._queued += 1
            if self._queued == self._max_events:
                self._ready.notify()
        return True

    def _declare(self, section: _Section, unit: Event | Quarantined) -> None:
        key = unit.symbol, unit.feed
        loss = section.losses.get(key)
        first, start_us, count = unit.number, unit.received_us, 1
        if loss is not None and loss.last == unit.number - 1:
            first, start_us, count = loss.first, loss.start_us, (loss.count or 0) + 1
        elif loss is not None:
            # Not consecutive: the earlier run is queued behind what is there, as a record of its own.
            section.losses[unit.symbol, f"{unit.feed}\0{loss.first}"] = loss
        section.losses[key] = Loss(
            unit.symbol, unit.feed, first, unit.number, count, start_us, unit.received_us, "queue_full"
        )

    def end(self, end: EpochEnd) -> None:
        """The current epoch is over."""
        with self._ready:
            self._sections[-1].end = end
            self._ready.notify()

    def close(self) -> None:
        """No more will be added: `take` no longer waits."""
        with self._ready:
            self._closed = True
            self._ready.notify()

    def abandon(self) -> int:
        """Give up what nobody could take before the end; returns how many units. Their epoch has no end on record."""
        with self._ready:
            left, self._queued = self._queued, 0
            self._allowance.add(-self._held_bytes)
            self._held_bytes = 0
            self._sections.clear()
            self._by_symbol.clear()
            return left

    def take(self, wait_s: float) -> Batch | None:
        """The next batch: at most `max_events` of one epoch, oldest first; None when nothing waits after `wait_s`."""
        with self._ready:
            if not self._closed and self._queued < self._max_events:
                self._ready.wait(wait_s)
            while self._sections:
                section = self._sections[0]
                if section.units or section.losses or section.end or not section.batches:
                    return self._batch(section)
                if len(self._sections) == 1:
                    return None
                self._sections.popleft()
            return None

    def _batch(self, section: _Section) -> Batch:
        events: list[Event] = []
        quarantined: list[Quarantined] = []
        gaps: list[Gap] = []
        size = 0
        units = section.units
        for _ in range(min(len(units), self._max_events)):
            unit, unit_size = units.popleft()
            size += unit_size
            self._by_symbol[unit.symbol] -= unit_size
            if isinstance(unit, Event):
                events.append(unit)
            elif isinstance(unit, Quarantined):
                quarantined.append(unit)
            else:
                gaps.append(unit)
            if size >= self._max_bytes:
                break
        self._held_bytes -= size
        self._allowance.add(-size)
        self._queued -= len(events) + len(quarantined) + len(gaps)
        losses, section.losses = tuple(section.losses.values()), {}
        section.batches += 1
        end = None
        if not units:
            end, section.end = section.end, None
            if end is not None:
                self._sections.popleft()
        numbers = [(event.symbol, event.feed, event.number) for event in events]
        numbers += [(frame.symbol, frame.feed, frame.number) for frame in quarantined]
        return Batch(
            self._stream, self._exchange, section.epoch.id, section.batches, section.epoch.opened_us,
            tuple(runs(numbers)), tuple(events), tuple(quarantined), losses, tuple(gaps), end,
        )  # fmt: skip
