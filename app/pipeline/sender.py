"""The thread of a stream that talks to Redis: batches to the list, or to the spool while Redis does not take them.

Order is kept: while the spool holds anything, every new batch goes there first, and the spool is drained oldest first.
When the spool is full too, the batch in hand waits, the memory queue fills, and the outbox refuses and declares the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event as Flag

import msgspec

from app import telemetry, telemetry_counts
from app.buffer.events import EventBuffer
from app.buffer.lease import Holding, Lease
from app.buffer.spool import Spool
from app.codec import BatchCodec, events_in
from app.errors import BufferUnavailable, SpoolFull
from app.model import Batch, Loss
from app.pipeline.latency import Latency
from app.pipeline.outbox import Outbox

#: After Redis did not answer or was full, the next attempt comes after so long; batches go to the spool meanwhile.
RETRY_S = 1.0
#: Where nothing comes, lease and state are looked at so often.
IDLE_S = 0.25
#: The spool is drained for so long at a time.
DRAIN_MOMENT_S = 0.5
#: Batches taken out of the spool for each one that goes in, while full batches wait in memory.
DRAIN_AT_LEAST = 4


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
        monotonic_s: Callable[[], float],
        crowd_events: int,
        crowded: Callable[[], None],
        publish: Callable[[float], bool],
    ) -> None:
        self._stream = stream
        self._outbox, self._buffer, self._spool, self._lease = outbox, buffer, spool, lease
        self._interval_s = interval_s
        self._now_s = monotonic_s
        self._crowd_events, self._crowded = crowd_events, crowded
        self._crowded_s = 0.0
        #: The next batch that is not full is taken then.
        self._next_s = 0.0
        self._publish = publish
        self._codec = BatchCodec()
        #: Taken from the outbox, not yet encoded; encoded, not yet delivered.
        self._taken: Batch | None = None
        self._in_hand: bytes | None = None
        self.latency = Latency(outbox.exchange)
        #: Bytes and events in the spool, as its records are written and delivered here.
        self.spool_bytes, self.spool_events = _waiting(spool)
        #: Never set: a wait that nothing cuts short.
        self._pause = Flag()
        #: No push before this; Redis did not answer, and nothing is asked of it, before that.
        self._retry_s = self._silent_s = 0.0
        self._renew_s = monotonic_s() + lease.ttl_s / 3
        self._publish_s = 0.0
        #: Why the spool did not take the last batch that Redis did not take; "" once one has gone its way.
        self.spool_refusal = ""
        #: Set when Redis says somebody else holds the lease: the reader closes its socket then.
        self.lost = Flag()
        #: Set when supervision wants another worker to have the stream (`publish` says so): the reader ends then.
        self.handed_over = Flag()
        self.finished = Flag()

    def run(self, deadline_s: Callable[[], float | None]) -> None:
        """Deliver until the outbox is closed and empty, or until `deadline_s()` has passed.

        Whatever goes wrong, the batch in hand stays in hand: this thread ends only when it is told to.
        """
        try:
            while True:
                limit = deadline_s()  # before looking: what came until it was set is seen
                batch_left = True
                try:
                    batch_left = self._deliver_next()
                    self._keep_lease()
                except Exception as error:  # noqa: BLE001 - see above
                    telemetry.sender_failed(self._stream, error)
                    self._pause.wait(RETRY_S)
                if limit is not None and ((not batch_left and not self._in_hand) or self._now_s() >= limit):
                    break
            abandoned = self._outbox.abandon() + (events_in(self._in_hand) if self._in_hand else 0)
            if abandoned:
                telemetry.batches_abandoned(self._stream, abandoned)
        finally:
            self.latency.report()
            self._say_goodbye()
            self.finished.set()

    def _deliver_next(self) -> bool:
        """Bring one batch on its way; False when nothing waits in memory."""
        self._outbox.stuck = bool(self.spool_refusal)
        if self._in_hand is None:
            if self._taken is None:
                self._taken = self._outbox.take(
                    self._interval_s if self._spool else IDLE_S, pause_s=self._next_s - self._now_s()
                )
                if self._taken is None:
                    self._drain()
                    return False
                self._next_s = self._now_s() + self._interval_s
                self.latency.add(self._taken.events)
            self._in_hand = self._encoded(self._taken)
            self._taken = None
        if not self._spool and self._push(self._in_hand):
            self._in_hand, self.spool_refusal = None, ""
            return True
        try:
            self._spool.append(self._in_hand)
            self._spooled(self._in_hand, 1)
            telemetry_counts.batch_spooled(self._outbox.exchange)
            self._in_hand = None
            self.spool_refusal = ""
        except (SpoolFull, OSError) as error:
            self.spool_refusal = str(error)
            telemetry.spool_refused(self._stream, error)
            self._pause.wait(self._interval_s)
        self._drain()
        return True

    def _encoded(self, batch: Batch) -> bytes:
        """The element of `batch`. One that can never be encoded (a bug) goes out as the declaration of its own loss."""
        try:
            return self._codec.encode(batch)
        except (ValueError, OverflowError, TypeError) as error:
            telemetry.sender_failed(self._stream, error)
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

    def _drain(self) -> None:
        """Deliver from the spool for a moment; lease and deadline are looked at between two moments.

        While full batches wait in memory the moment is short, but longer than what they bring: the spool shrinks.
        """
        until_s = self._now_s() + DRAIN_MOMENT_S
        delivered = 0

        def deliver(element: bytes) -> bool:
            nonlocal delivered
            enough = delivered >= DRAIN_AT_LEAST and self._outbox.batch_waits
            if enough or self._now_s() >= until_s or not self._push(element):
                return False
            delivered += 1
            self._spooled(element, -1)
            return True

        if self._spool and self._now_s() >= self._retry_s and self._spool.drain(deliver):
            self.spool_bytes = self.spool_events = 0
            telemetry.spool_drained(self._stream)

    def _say_goodbye(self) -> None:
        """The state at the end: else the board would tell the one of a second ago until it runs out. Not in place of
        another holder's, and not to a Redis that is silent."""
        if not self.lost.is_set() and self._now_s() >= self._silent_s:
            with suppress(BufferUnavailable):
                self._publish(self._now_s())

    def _spooled(self, element: bytes, sign: int) -> None:
        self.spool_bytes += sign * len(element)
        self.spool_events += sign * events_in(element)

    def _push(self, element: bytes) -> bool:
        if self._now_s() < self._retry_s:
            return False
        try:
            waiting = self._buffer.push(self._stream, element)
            if waiting is not None:
                if waiting > self._crowd_events and self._now_s() - self._crowded_s > 1.0:
                    self._crowded_s = self._now_s()
                    self._crowded()
                return True
            telemetry.buffer_full(self._stream)
        except BufferUnavailable as error:
            telemetry.push_failed(self._stream, error)
            self._silent_s = self._now_s() + RETRY_S
        self._retry_s = self._now_s() + RETRY_S
        return False

    def _keep_lease(self) -> None:
        """Renew at a third of its time. A silent Redis is no lost lease: nobody else can take it (docs/decisions/0001)."""
        now_s = self._now_s()
        if now_s < self._silent_s:
            return  # it did not answer a moment ago: waiting for it again would only fill the memory queue
        try:
            if now_s >= self._renew_s:
                self._renew_s = now_s + self._lease.ttl_s / 3
                holding = self._lease.renew()
                if holding is Holding.EXPIRED:
                    holding = Holding.OURS if self._lease.acquire() else Holding.TAKEN
                if holding is Holding.TAKEN:
                    self.lost.set()
                    telemetry.lease_lost(self._stream, self._lease.holder())
            if now_s >= self._publish_s and not self.lost.is_set():  # the board shows whoever has it
                self._publish_s = now_s + 1.0
                self.latency.report()
                if self._publish(now_s):
                    self.handed_over.set()
        except BufferUnavailable as error:
            self._renew_s = self._publish_s = self._retry_s = self._silent_s = self._now_s() + RETRY_S
            telemetry.push_failed(self._stream, error)


def _waiting(spool: Spool) -> tuple[int, int]:
    """For people only: a spool that cannot be read keeps no stream from recording."""
    try:
        return spool.waiting() if spool else (0, 0)
    except OSError:
        return 0, 0
