"""A stream's way to Redis: batches to the list, or to the spool while Redis does not take them.

The carrier of the process calls it (app/pipeline/carrier.py); nothing here waits but for Redis and the disk.

Order is kept: while the spool holds anything, every new batch goes there first, and the spool is drained oldest first.
When the spool is full too, the batch in hand waits, the memory queue fills, and the outbox refuses and declares the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event as Flag

import msgspec

from app import telemetry, telemetry_counts
from app.buffer.events import EventBuffer, Outcome
from app.buffer.lease import Holding, Lease
from app.buffer.spool import Spool
from app.codec import BatchCodec, events_in
from app.errors import BufferSilent, BufferUnavailable, SpoolFull
from app.model import Batch, Loss
from app.pipeline.latency import Latency
from app.pipeline.outbox import Outbox

#: After Redis did not answer or was full, the next attempt comes after so long; batches go to the spool meanwhile.
RETRY_S = 1.0
#: Batches taken out of the spool for each one that goes in, while full batches wait in memory.
DRAIN_AT_LEAST = 4
#: Of full batches so many go to the spool before others have their turn.
SET_ASIDE_AT_ONCE = 16


class Silence:
    """Redis did not answer a moment ago: until then no stream of the process asks it for anything."""

    until_s = 0.0


class Sender:
    """Delivers one stream's batches until told to finish, keeps its lease, publishes its state."""

    def __init__(
        self,
        stream: str,
        outbox: Outbox,
        buffer: EventBuffer,
        spool: Spool,
        lease: Lease,
        *,
        interval_s: float,
        silence: Silence,
        monotonic_s: Callable[[], float],
        crowd_events: int,
        crowded: Callable[[], None],
        publish: Callable[[float], bool],
    ) -> None:
        self.stream = stream
        self._outbox, self._buffer, self._spool, self._lease = outbox, buffer, spool, lease
        self._interval_s = interval_s
        self._silence = silence
        self._now_s = monotonic_s
        self._crowd_events, self._crowded = crowd_events, crowded
        self._publish = publish
        self._codec = BatchCodec()
        #: Taken from the outbox, not yet encoded; encoded, not yet delivered.
        self._taken: Batch | None = None
        self._in_hand: bytes | None = None
        self.latency = Latency(outbox.exchange)
        #: Bytes and events in the spool, as its records are written and delivered here.
        self.spool_bytes, self.spool_events = _waiting(spool)
        #: No push before this; nothing is taken before that.
        self._retry_s = self._rest_s = 0.0
        #: Until when what is left is delivered, once nothing more comes; and as it was when the queue was looked at last.
        self._deadline_s: float | None = None
        self._limit_s: float | None = None
        #: There was something to deliver, the last time.
        self._brought = False
        self._renew_s = monotonic_s() + lease.ttl_s / 3
        self._publish_s = 0.0
        #: Why the spool did not take the last batch that Redis did not take; "" once one has gone its way.
        self.spool_refusal = ""
        #: Set when Redis says somebody else holds the lease: the reader closes its socket then.
        self.lost = Flag()
        #: Set when supervision wants another worker to have the stream (`publish` says so): the reader ends then.
        self.handed_over = Flag()
        self.finished = Flag()

    def finish(self, deadline_s: float) -> None:
        """Nothing more is added: what is left is delivered until `deadline_s`, then `finished` is set."""
        self._deadline_s = deadline_s
        self._outbox.close()

    @property
    def pressing(self) -> bool:
        """Whether something is not to wait for the next round."""
        return self._outbox.pressing and self._now_s() >= self._rest_s

    @property
    def busy(self) -> bool:
        """Whether the next round is to come soon."""
        return self._brought or bool(self._spool)

    def take(self) -> bytes | None:
        """What is to be pushed to Redis now, and `told` says what came of it. None: nothing is, or it went to the spool."""
        self._limit_s = self._deadline_s  # before looking: what came until it was set is seen
        self._brought = True
        if self._now_s() < self._rest_s:
            return None
        self._outbox.stuck = bool(self.spool_refusal)
        element = self._next()
        if element is None:
            self._brought = False
            return None
        if not self._spool and self._now_s() >= max(self._retry_s, self._silence.until_s):
            return element
        for _ in range(SET_ASIDE_AT_ONCE):
            self._set_aside(element)
            if self._in_hand is not None or not self._outbox.batch_waits or (element := self._next()) is None:
                break
        return None

    def _next(self) -> bytes | None:
        """The element in hand, from now on; None: nothing waits."""
        if self._in_hand is None:
            if self._taken is None:
                self._taken = self._outbox.take()
                if self._taken is None:
                    return None
                self.latency.add(self._taken.events)
            self._in_hand = self._encoded(self._taken)
            self._taken = None
        return self._in_hand

    def told(self, outcome: Outcome) -> None:
        """What came of the push of what `take` gave."""
        element = self._in_hand
        assert element is not None
        if self._pushed(outcome):
            self._in_hand, self.spool_refusal = None, ""
        else:
            self._set_aside(element)

    def look_after(self, until_s: float) -> None:
        """Drain the spool until then, keep the lease, say how things are."""
        try:
            self._drain(until_s)
        finally:
            self._keep_lease()

    def failed(self, error: Exception) -> None:
        """Something went wrong that has no name: the batch in hand stays in hand."""
        telemetry.sender_failed(self.stream, error)
        self._rest_s = self._now_s() + RETRY_S

    @property
    def over(self) -> bool:
        """Whether it was told to finish, and nothing is left or the time has passed."""
        if self._limit_s is None:
            return False
        return self._now_s() >= self._limit_s or not (self._brought or self._in_hand)

    def end(self) -> None:
        """The last that is done."""
        try:
            abandoned = self._outbox.abandon() + (events_in(self._in_hand) if self._in_hand else 0)
            if abandoned:
                telemetry.batches_abandoned(self.stream, abandoned)
            self.latency.report()
            self._say_goodbye()
        finally:
            self.finished.set()

    def _set_aside(self, element: bytes) -> None:
        try:
            self._spool.append(element)
        except (SpoolFull, OSError) as error:
            self.spool_refusal = str(error)
            telemetry.spool_refused(self.stream, error)
            self._rest_s = self._now_s() + self._interval_s
            return
        self._spooled(element, 1)
        telemetry_counts.batch_spooled(self._outbox.exchange)
        self._in_hand, self.spool_refusal = None, ""

    def _encoded(self, batch: Batch) -> bytes:
        """The element of `batch`. One that can never be encoded (a bug) goes out as the declaration of its own loss."""
        try:
            return self._codec.encode(batch)
        except (ValueError, OverflowError, TypeError) as error:
            telemetry.sender_failed(self.stream, error)
            losses = tuple(
                Loss(
                    r.symbol,
                    r.feed,
                    r.first,
                    r.last,
                    r.last - r.first + 1,
                    batch.opened_us,
                    batch.opened_us,
                    "not_encodable",
                )
                for r in batch.ranges
            )
            bare = msgspec.structs.replace(batch, ranges=(), events=(), quarantined=(), losses=(*batch.losses, *losses))
            return self._codec.encode(bare)

    def _drain(self, until_s: float) -> None:
        """Deliver from the spool until then, a few batches at least; others have their turn between two times.

        While full batches wait in memory the moment is short, but longer than what they bring: the spool shrinks.
        """
        if not self._spool:
            return
        delivered = 0

        def deliver(element: bytes) -> bool:
            nonlocal delivered
            enough = delivered >= DRAIN_AT_LEAST and (self._outbox.batch_waits or self._now_s() >= until_s)
            if enough or not self._push(element):
                return False
            delivered += 1
            self._spooled(element, -1)
            return True

        if self._spool.drain(deliver):
            self.spool_bytes = self.spool_events = 0
            telemetry.spool_drained(self.stream)

    def _say_goodbye(self) -> None:
        """The state at the end: else the board would tell the one of a second ago until it runs out. Not in place of
        another holder's, and not to a Redis that is silent."""
        if not self.lost.is_set() and self._now_s() >= self._silence.until_s:
            try:
                self._publish(self._now_s())
            except BufferUnavailable as error:
                self._no_answer(error)

    def _spooled(self, element: bytes, sign: int) -> None:
        self.spool_bytes += sign * len(element)
        self.spool_events += sign * events_in(element)

    def _push(self, element: bytes) -> bool:
        if self._now_s() < max(self._retry_s, self._silence.until_s):
            return False
        (outcome,) = self._buffer.push_all([(self.stream, element)])
        return self._pushed(outcome)

    def _pushed(self, outcome: Outcome) -> bool:
        if isinstance(outcome, int):
            if outcome > self._crowd_events:
                self._crowded()
            return True
        self._retry_s = self._now_s() + RETRY_S
        if outcome is None:
            telemetry.buffer_full(self.stream)
        else:
            self._no_answer(outcome)
        return False

    def _no_answer(self, error: BufferUnavailable) -> None:
        telemetry.push_failed(self.stream, error)
        if isinstance(error, BufferSilent):
            self._silence.until_s = self._now_s() + RETRY_S

    def _keep_lease(self) -> None:
        """Renew at a third of its time. A silent Redis is no lost lease: nobody else can take it (docs/decisions/0001)."""
        now_s = self._now_s()
        if now_s < self._silence.until_s:
            return  # it did not answer a moment ago: waiting for it again would only fill the memory queues
        try:
            if now_s >= self._renew_s:
                self._renew_s = now_s + self._lease.ttl_s / 3
                holding = self._lease.renew()
                if holding is Holding.EXPIRED:
                    holding = Holding.OURS if self._lease.acquire() else Holding.TAKEN
                if holding is Holding.TAKEN:
                    self.lost.set()
                    telemetry.lease_lost(self.stream, self._lease.holder())
            if now_s >= self._publish_s and not self.lost.is_set():  # the board shows whoever has it
                self._publish_s = now_s + 1.0
                self.latency.report()
                if self._publish(now_s):
                    self.handed_over.set()
        except BufferUnavailable as error:
            self._renew_s = self._publish_s = self._now_s() + RETRY_S
            self._no_answer(error)


def _waiting(spool: Spool) -> tuple[int, int]:
    """For people only: a spool that cannot be read keeps no stream from recording."""
    try:
        return spool.waiting() if spool else (0, 0)
    except OSError:
        return 0, 0
