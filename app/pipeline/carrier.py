"""The thread of a process that talks to Redis: it goes round the streams, and pushes what they have all at once.

A round begins when the interval is over; in between it looks after those where something is pressing: a full batch, a
connection that begins or ends. Where nothing waits anywhere, what comes first is pushed at once. A round takes as long as
it takes: where there is more to do than the processor carries, batches grow. A thread for each stream, and a question to
Redis for each of its batches, cost more than reading them (docs/decisions/0010).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import NamedTuple, TypeVar

from app.buffer.events import Outcome
from app.pipeline.outbox import Bell
from app.pipeline.sender import Sender, Silence

T = TypeVar("T")
#: Where nothing comes, leases and states are looked at so often.
IDLE_S = 0.25
#: Between deliveries spools are drained and leases kept, stream by stream, for so long together.
MOMENT_S = 0.1
#: Rounds take one part in so many of the time from the beginning of one to the next one's, which is this at most: a
#: processor that is short is for reading first, and larger batches cost everybody less.
SHARE, LONGEST_S = 4, 1.0
#: Whether it is short is judged by about so many rounds: one that took long delays no batch of the next.
ROUNDS = 16
#: A flush is asked for so often at most.
NUDGE_S = 1.0
#: What is pushed in one question to Redis.
PUSH_BYTES = 1024 * 1024


class Spacing:
    """How long it is from the beginning of one round to the next one's."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s, self._took_s = interval_s, 0.0

    def after_s(self, took_s: float) -> float:
        """Seconds, now that one more round took `took_s`."""
        self._took_s += (took_s - self._took_s) / ROUNDS
        return max(self._interval_s, min(SHARE * self._took_s, LONGEST_S))


class _Place(NamedTuple):
    """A stream that is carried for."""

    sender: Sender
    context: Context

    def call(self, act: Callable[[], T]) -> T | None:
        """What `act` returns; None where it failed, which the sender is told: nothing of it disturbs the others."""
        try:
            return self.context.run(act)
        except Exception as error:  # noqa: BLE001 - see above
            self.context.run(self.sender.failed, error)
            return None

    def busy(self) -> bool:
        """As `Sender.busy`, which may have to look at a disk."""
        return bool(self.call(lambda: self.sender.busy))


class Carrier:
    """Delivers for streams until they are told to finish. Its thread begins with the first and ends with the last."""

    def __init__(
        self,
        push_all: Callable[[Sequence[tuple[str, bytes]]], list[Outcome]],
        interval_s: float,
        monotonic_s: Callable[[], float],
    ) -> None:
        self.bell, self.silence = Bell(), Silence()
        self._push_all = push_all
        self._spacing, self._now_s = Spacing(interval_s), monotonic_s
        self._lock = threading.Lock()
        self._places: deque[_Place] = deque()
        self._new: deque[_Place] = deque()
        self._runs = False
        #: The next round begins then.
        self._round_s = 0.0
        self._nudge_s, self._nudging = 0.0, threading.Lock()

    def carry(self, sender: Sender) -> None:
        """Deliver for `sender` until it is told to finish, in this caller's context: lines in the log name its task."""
        with self._lock:
            if not self._runs:
                threading.Thread(target=self._run, name="carrier", daemon=True).start()
                self._runs = True
            self._new.append(_Place(sender, copy_context()))

    def nudge(self, ask: Callable[[], object]) -> None:
        """Have `ask` called soon, for whichever stream: on a thread of its own, for it may wait; once a second at most."""

        def run() -> None:
            try:
                ask()
            finally:
                self._nudging.release()

        if self._now_s() >= self._nudge_s and self._nudging.acquire(blocking=False):
            self._nudge_s = self._now_s() + NUDGE_S
            try:
                threading.Thread(target=run, name="nudge", daemon=True).start()
            except RuntimeError:  # no more threads: the beat comes without it
                self._nudging.release()

    def _run(self) -> None:
        try:
            while self._arrived():
                self._go()
        except BaseException:  # a carrier that dies must not leave anybody waiting
            with self._lock:
                self._runs = False
                left = [*self._places, *self._new]
                self._places.clear()
                self._new.clear()
            for place in left:
                place.call(place.sender.end)
            raise

    def _arrived(self) -> bool:
        """Take in who came; False when there is nobody left, and this thread is to end."""
        with self._lock:
            self._places += self._new
            self._new.clear()
            self._runs = bool(self._places)
            return self._runs

    def _go(self) -> None:
        """Wait until something is to be done, and do it."""
        pressing = any(place.sender.pressing for place in self._places)
        self.bell.wait(0.0 if pressing else max(0.0, self._round_s - self._now_s()))
        began_s = self._now_s()
        if self.bell.idle or began_s >= self._round_s:
            self.bell.idle = True  # before looking: what comes meanwhile rings
            self._deliver(self._places)
            busy = any([place.busy() for place in self._places])
            self.bell.idle = not busy
            self._look_after()
            spacing_s = self._spacing.after_s(self._now_s() - began_s)
            self._round_s = began_s + (spacing_s if busy else IDLE_S)
        else:
            self._deliver([place for place in self._places if place.sender.pressing])
            self._look_after()

    def _look_after(self) -> None:
        """Spools and leases, in turns: one at least, then on for a moment while nothing calls."""
        until_s = self._now_s() + MOMENT_S
        for _ in range(len(self._places)):
            place = self._places[0]
            self._places.rotate(-1)
            place.call(partial(place.sender.look_after, until_s))
            if self._now_s() >= until_s or self.bell.rung:
                break
        for place in [place for place in self._places if place.sender.over]:
            self._places.remove(place)
            place.call(place.sender.end)

    def _deliver(self, places: Iterable[_Place]) -> None:
        """One batch of each of `places`."""
        taken: list[tuple[_Place, bytes]] = []
        size = 0
        for place in places:
            if (element := place.call(place.sender.take)) is not None:
                taken.append((place, element))
                size += len(element)
                if size >= PUSH_BYTES:
                    self._push(taken)
                    taken, size = [], 0
        self._push(taken)

    def _push(self, taken: Sequence[tuple[_Place, bytes]]) -> None:
        if not taken:
            return
        try:
            outcomes = self._push_all([(place.sender.stream, element) for place, element in taken])
        except Exception as error:  # noqa: BLE001 - what is in hand stays in hand
            for place, _ in taken:
                place.call(partial(place.sender.failed, error))
            return
        for (place, _), outcome in zip(taken, outcomes, strict=True):
            place.call(partial(place.sender.told, outcome))
