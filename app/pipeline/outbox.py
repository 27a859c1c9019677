"""The bounded memory queue of a stream, between the thread that reads sockets and the thread that talks to Redis.

The only place where Collector gives up received data. A full queue refuses the newest, market by market: while a market
holds less than its fair share it is never refused, so one market's flood cannot take another's place. What is refused is
declared as a `Loss` in the next batch.

A connection whose sender is behind is left alone for a moment (docs/decisions/0009); nothing blocks the reader.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from app.model import Batch, EpochEnd, Event, Gap, Loss, Quarantined, runs

Unit = Event | Quarantined | Gap

#: Where so many full batches wait, the sender goes first, for so long at most; and for so long where half of the bytes are
#: taken that this stream or its process may hold.
BEHIND_BATCHES, GIVE_WAY_S, HALF_FULL_S = 2, 0.005, 0.25

#: What a record takes beside its text, roughly.
OVERHEAD_BYTES = 200


def _size(unit: Unit) -> int:
    """Bytes that a unit takes, roughly."""
    if type(unit) is Event:
        return len(unit.data) + OVERHEAD_BYTES
    return (len(unit.frame) if type(unit) is Quarantined else 0) + OVERHEAD_BYTES


class Allowance:
    """Bytes all queues of a process may hold together. Shared by its streams."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.held_bytes += size


class Bell:
    """What a queue wakes the thread with that empties the queues of a process."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        #: Nothing waits anywhere: whatever comes first is worth waking for.
        self.idle = False

    def ring(self, pressing: bool) -> None:
        """Something came; `pressing`: it does not wait for the next round."""
        if pressing or self.idle:
            self._rung.set()

    @property
    def rung(self) -> bool:
        """Whether it was, since the last wait."""
        return self._rung.is_set()

    def wait(self, wait_s: float) -> None:
        """Until it is rung, or was since the last time; for `wait_s` at most."""
        self._rung.wait(wait_s)
        self._rung.clear()


class Epoch(NamedTuple):
    """One connection, as its batches name it."""

    id: str
    opened_us: int
    #: Epochs that are still going on: this connection is to take their place.
    overlaps: tuple[str, ...] = ()
    #: The one before, of the same stream and process.
    after: str = ""


class Lane:
    """The queued units of one epoch: its connection adds, from one thread. Made by `Outbox.begin`."""

    __slots__ = ("_outbox", "batches", "ended", "epoch", "losses", "units")

    def __init__(self, outbox: Outbox, epoch: Epoch) -> None:
        self._outbox = outbox
        self.epoch = epoch
        self.units: deque[Unit] = deque()
        self.losses: dict[tuple[str, str], Loss] = {}
        self.ended: EpochEnd | None = None
        self.batches = 0

    @property
    def waits(self) -> bool:
        """Whether there is something to take."""
        return bool(self.units or self.losses or self.ended or not self.batches)

    def add(self, units: Iterable[Unit]) -> list[Event | Quarantined]:
        """Queue units; returns those that were refused, and whose numbers are declared lost."""
        return self._outbox.add(self, units)

    def behind_s(self) -> float:
        """As `Outbox.behind_s`."""
        return self._outbox.behind_s()

    def end(self, end: EpochEnd) -> None:
        """The epoch is over: nothing is added after this."""
        self._outbox.end(self, end)


class Outbox:
    """Units in, batches out. The reader adds, and connections that say goodbye do; the carrier takes."""

    def __init__(
        self,
        stream: str,
        exchange: str,
        *,
        max_bytes: int,
        share_bytes: Callable[[], int],
        allowance: Allowance,
        max_events: int,
        bell: Bell | None = None,
    ) -> None:
        self._stream, self.exchange = stream, exchange
        self._max_bytes = max_bytes
        #: What each market may hold although the queues are full.
        self._share_bytes = share_bytes
        self._allowance = allowance
        self._max_events = max_events
        self._lanes: deque[Lane] = deque()
        self._by_symbol: dict[str, int] = {}
        self._held_bytes = 0
        self._queued = 0
        self._lock = threading.Lock()
        self._bell = bell or Bell()
        self._closed = self._abandoned = False
        #: Neither Redis nor the spool takes anything, says the sender: nothing is gained by waiting for it.
        self.stuck = False
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

    @property
    def pressing(self) -> bool:
        """Whether the next batch is to be taken at once: a full one, the first or the last of an epoch, or the end."""
        return self._closed or self.batch_waits or any(lane.ended or not lane.batches for lane in tuple(self._lanes))

    def begin(self, epoch: Epoch) -> Lane:
        """Where the units of `epoch` are added. Its first batch goes out at once, so the epoch is on record."""
        with self._lock:
            lane = Lane(self, epoch)
            self._lanes.append(lane)
        self._bell.ring(True)
        return lane

    def add(self, lane: Lane, units: Iterable[Unit]) -> list[Event | Quarantined]:
        """Called by `Lane.add`."""
        refused: list[Event | Quarantined] = []
        with self._lock:
            if self._abandoned:  # nobody takes it any more, nor gives its place back; its epoch has no end on record
                return [unit for unit in units if not isinstance(unit, Gap)]
            by_symbol, append, before = self._by_symbol, lane.units.append, len(lane.units)
            held_bytes, queued = self._held_bytes, self._queued
            room = min(self._max_bytes, held_bytes + self._allowance.max_bytes - self._allowance.held_bytes)
            for unit in units:
                size, symbol = _size(unit), unit.symbol
                held = by_symbol.get(symbol, 0)
                full = held_bytes + size > room
                if full and held and held + size > self._share_bytes() and not isinstance(unit, Gap):
                    refused.append(unit)
                    self._declare(lane, unit)
                    continue
                append(unit)
                by_symbol[symbol] = held + size
                held_bytes += size
            self.refused += len(refused)
            self._allowance.add(held_bytes - self._held_bytes)
            self._held_bytes = held_bytes
            self._queued += len(lane.units) - before
            if not queued or queued < self._max_events <= self._queued:
                self._bell.ring(self.batch_waits)
        return refused

    def behind_s(self) -> float:
        """For how long at most nothing is to be read, so that the sender catches up; 0.0: it is not behind."""
        if self._closed or self.stuck:
            return 0.0
        allowance = self._allowance
        if self._held_bytes * 2 >= self._max_bytes or allowance.held_bytes * 2 >= allowance.max_bytes:
            return HALF_FULL_S if self._queued else 0.0
        return GIVE_WAY_S if self._queued >= BEHIND_BATCHES * self._max_events else 0.0

    def _declare(self, lane: Lane, unit: Event | Quarantined) -> None:
        key = unit.symbol, unit.feed
        loss = lane.losses.get(key)
        first, start_us, count = unit.number, unit.received_us, 1
        if loss is not None and loss.last == unit.number - 1:
            first, start_us, count = loss.first, loss.start_us, (loss.count or 0) + 1
        elif loss is not None:
            # Not consecutive: the earlier run is queued behind what is there, as a record of its own.
            lane.losses[unit.symbol, f"{unit.feed}\0{loss.first}"] = loss
        lane.losses[key] = Loss(
            unit.symbol, unit.feed, first, unit.number, count, start_us, unit.received_us, "queue_full"
        )

    def end(self, lane: Lane, end: EpochEnd) -> None:
        """Called by `Lane.end`."""
        with self._lock:
            lane.ended = end
        self._bell.ring(True)

    def close(self) -> None:
        """No more will be added."""
        self._closed = True
        self._bell.ring(True)

    def abandon(self) -> int:
        """Give up what nobody could take before the end; returns how many units. Their epoch has no end on record."""
        with self._lock:
            self._abandoned = True
            left, self._queued = self._queued, 0
            self._allowance.add(-self._held_bytes)
            self._held_bytes = 0
            self._lanes.clear()
            self._by_symbol.clear()
            return left

    def take(self) -> Batch | None:
        """The next batch: at most `max_events` of one epoch. None: nothing waits.

        An epoch that is over goes out to its end before others; epochs that are going on take turns.
        """
        with self._lock:
            for lane in sorted(self._lanes, key=lambda lane: lane.ended is None):
                if lane.waits:
                    self._lanes.remove(lane)
                    batch = self._batch(lane)
                    if batch.end is None:
                        self._lanes.append(lane)
                    return batch
            return None

    def _batch(self, lane: Lane) -> Batch:
        events: list[Event] = []
        quarantined: list[Quarantined] = []
        gaps: list[Gap] = []
        size = 0
        units, by_symbol = lane.units, self._by_symbol
        for _ in range(min(len(units), self._max_events)):
            unit = units.popleft()
            unit_size = _size(unit)
            size += unit_size
            by_symbol[unit.symbol] -= unit_size
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
        losses, lane.losses = tuple(lane.losses.values()), {}
        lane.batches += 1
        end = lane.ended if not units else None
        numbers = [(event.symbol, event.feed, event.number) for event in events]
        numbers += [(frame.symbol, frame.feed, frame.number) for frame in quarantined]
        return Batch(
            self._stream, self.exchange, lane.epoch.id, lane.batches, lane.epoch.opened_us,
            tuple(runs(numbers)), tuple(events), tuple(quarantined), losses, tuple(gaps), end, lane.epoch.overlaps,
            after=lane.epoch.after,
        )  # fmt: skip
