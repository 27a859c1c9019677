"""Redis -> the open segment: claim the heads of lists, insert, commit, and only then acknowledge.

A crash at any point is harmless: before the commit the claim is still in Redis; between commit and acknowledgement the
claim comes again and its ranges say that it is stored (a replay). Two flushers at once can only do work twice.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from app import telemetry, telemetry_counts, telemetry_disk
from app.buffer.events import EventBuffer
from app.codec import BatchCodec, ElementRejected, NewerFormat
from app.errors import BufferUnavailable, CollectorError, Interrupted, SegmentSealed, StoreError
from app.model import UNDECODED, Batch, Quarantined, Range
from app.pipeline.late import WINDOW_US, LateTwins, happened_us
from app.store.engine import classify
from app.store.insert import Lookup, Outcomes
from app.store.known import KnownRanges
from app.store.ledger import OPEN, SEALED, SEALING, Ledger, SegmentEntry
from app.store.segment import SealedSegment, Segment, relative_path
from app.store.tallies import Counts

#: What is stored in one transaction, of several lists together.
CLAIM_BATCHES = 500
CLAIM_BYTES = 8 * 1024 * 1024


@dataclass
class FlushReport:
    """What one run did."""

    segment: int = 0
    batches: int = 0
    counts: Counts = field(default_factory=Counts)
    #: Streams whose claim stayed in Redis, with the kind of error.
    failed: dict[str, str] = field(default_factory=dict)
    sealed: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return {"segment": self.segment, "batches": self.batches, **vars(self.counts), "failed": self.failed,
                "sealed": self.sealed}  # fmt: skip


@dataclass
class _Run:
    """What one run writes into, and what it has still to take."""

    segment: Segment
    entry: SegmentEntry
    previous: SealedSegment | None
    report: FlushReport
    #: Stream -> batches.
    pending: dict[str, int]
    keep_going: Callable[[], bool]
    known: KnownRanges = field(default_factory=KnownRanges)


class Flush:
    """The one writer of segments. Run it as often as you like, from one process at a time (a lock saves the work)."""

    def __init__(
        self,
        buffer: EventBuffer,
        ledger: Ledger,
        segments_root: Path,
        *,
        segment_secs: int,
        wall_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        late: LateTwins | None = None,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._buffer, self._ledger = buffer, ledger
        self._root = segments_root
        self._segment_us = segment_secs * 1_000_000
        self._now_us, self._now_s = wall_us, monotonic_s
        self._late = late
        #: Called with the name of each step boundary as it is passed; tests stop the process there.
        self._step = step
        self._codec = BatchCodec()

    def run(self, *, deadline_s: float | None = None, keep_going: Callable[[], bool] = lambda: True) -> FlushReport:
        """Turn the segment over if it is due, then take from every list what is there now.

        What comes meanwhile is left to the next run, which takes it in larger claims. Ends when all is taken, after
        `deadline_s` seconds, or, before the next claim, when `keep_going` says no (the lock was lost, the process stops).
        Raises: BufferUnavailable; what was committed by then is stored.
        """
        started_s = self._now_s()
        report = FlushReport()
        self.turn_over(report)
        segment, entry, previous = self._open()
        report.segment = entry.number
        with segment.held():
            pending = {depth.stream: depth.batches for depth in self._buffer.depths()}
            run = _Run(segment, entry, previous, report, pending, keep_going)
            self._fill(run, lambda: self._now_s() - started_s > (deadline_s or inf))
        if report.batches:
            c = report.counts
            telemetry.flush_committed(
                entry.number,
                report.batches,
                c.stored,
                c.duplicates,
                c.replays,
                c.quarantined,
                self._now_s() - started_s,
            )
        return report

    def _fill(self, run: _Run, late: Callable[[], bool]) -> None:
        """Claims, each of as many lists as fit, all lists in turn, until what was there has been taken."""
        try:
            while run.pending and run.keep_going():
                waiting = deque(run.pending)
                while waiting and run.keep_going():
                    self._claim(run, self._heads(waiting))
                if late():
                    break
        except SegmentSealed:
            return  # another flusher turned it over: the next run finds the new one
        except Interrupted:
            return  # a store was asked for twins: the claim stays where it is

    def _heads(self, waiting: deque[str]) -> dict[str, list[bytes]]:
        """One claim: the heads of the next lists, which are taken off `waiting`."""
        claim: dict[str, list[bytes]] = {}
        batches = size = 0
        while waiting and batches < CLAIM_BATCHES and size < CLAIM_BYTES:
            stream = waiting.popleft()
            claim[stream] = self._buffer.head(stream, CLAIM_BATCHES - batches, CLAIM_BYTES - size)
            batches += len(claim[stream])
            size += sum(map(len, claim[stream]))
        return claim

    def _claim(self, run: _Run, claim: Mapping[str, list[bytes]]) -> None:
        """Store and acknowledge a claim; where that fails each list for itself: whatever one brings, the others are flushed.

        Raises: BufferUnavailable, SegmentSealed, Interrupted.
        """
        try:
            self._store(run, claim)
        except (BufferUnavailable, SegmentSealed, Interrupted):
            raise
        except Exception as error:  # noqa: BLE001 - see above
            run.known = KnownRanges()
            if len(claim) > 1:
                for stream in [stream for stream in claim if stream in run.pending]:
                    if run.keep_going():  # each may have to wait for whoever holds the file
                        self._claim(run, {stream: claim[stream]})
                return
            (stream,) = claim
            kind = classify(error) if isinstance(error, DBAPIError) else type(error).__name__
            kind = "store" if isinstance(error, StoreError) else kind
            telemetry.flush_failed(stream, kind, error)
            run.report.failed[stream] = kind
            del run.pending[stream]

    def _store(self, run: _Run, claim: Mapping[str, list[bytes]]) -> None:
        """All of a claim in one transaction, then each list acknowledged; lists with nothing left are pending no more."""
        batches = [self._decoded(stream, element) for stream, elements in claim.items() for element in elements]
        if batches:
            self._load(run.known, {batch.epoch for batch in batches})
            twins = self._twins(batches, run.entry, run.previous)
            self._step("flush.before_commit")
            outcomes, begun_s = Outcomes(), self._now_s()
            counts = run.segment.store(batches, run.known, twins, outcomes)
            self._count(counts, outcomes, self._now_s() - begun_s)
            self._step("flush.after_commit")
            run.report.batches += len(batches)
            run.report.counts.add(counts)
        for stream, elements in claim.items():
            removed = 0
            if elements:
                removed = self._buffer.acknowledge(stream, elements)
                self._step("flush.after_acknowledge")
            run.pending[stream] -= removed
            # Nothing was there, or somebody else acknowledged it meanwhile.
            if not elements or removed < len(elements) or run.pending[stream] <= 0:
                del run.pending[stream]

    def _count(self, counts: Counts, outcomes: Outcomes, seconds: float) -> None:
        """What a commit did: one that is rolled back counts nothing."""
        telemetry_counts.claim_committed(seconds, counts.stored)
        for feed, c in outcomes.feeds.items():
            telemetry_counts.feed_committed(
                feed, stored=c.stored, duplicates=c.duplicates, quarantined=c.quarantined, replays=c.replays,
                fetched=outcomes.fetched[feed],
            )  # fmt: skip
        telemetry_counts.losses_committed(outcomes.lost, outcomes.declared)

    def _twins(self, batches: Sequence[Batch], entry: SegmentEntry, previous: SealedSegment | None) -> Lookup | None:
        """Where events of `batches` may stand already: in the segment before, or, for late ones, in what is older."""
        oldest_us = min((happened_us(event) for batch in batches for event in batch.events), default=None)
        if oldest_us is None:
            return None
        near = previous.twins if previous is not None and _may_have_twins(batches, oldest_us, entry.opened_us) else None
        known_from_us = entry.opened_us if previous is None else previous.opened_us
        far = self._late.find(batches, known_from_us) if self._late is not None and oldest_us < known_from_us else None
        if near is None or far is None:
            return near or far
        return lambda exchange, feed, events: {**far(exchange, feed, events), **near(exchange, feed, events)}

    def _decoded(self, stream: str, element: bytes) -> Batch:
        """The batch; where the bytes are none, a batch that carries them into quarantine, with a number of its own."""
        try:
            return self._codec.decode(element)
        except NewerFormat:
            raise  # it stays where it is, for the version that reads it
        except ElementRejected as error:
            telemetry.element_rejected(stream, error, len(element))
            name = hashlib.sha256(element).hexdigest()[:32]  # repeatable, so that a replay is one
            unit = Quarantined(UNDECODED, UNDECODED, 1, self._now_us(), f"element: {error}", element)
            one = Range(UNDECODED, UNDECODED, 1, 1)
            exchange = stream.split("-")[0]
            # No connection: nobody is to wait for its end.
            return Batch(stream, exchange, name, 1, self._now_us(), (one,), quarantined=(unit,), kind="finding")

    def _load(self, known: KnownRanges, epochs: set[str]) -> None:
        """What the kept segments and the ledger hold of `epochs`; the open segment is asked when it is written."""
        fresh = known.missing(epochs)
        if not fresh:
            return
        for entry in self._ledger.segments(SEALING, SEALED):
            try:
                self._kept(entry).load_known(known, fresh)
            except (DBAPIError, OSError) as error:  # one damaged file must not stop recording: identities still hold
                if entry.number in {kept.number for kept in self._ledger.segments(SEALING, SEALED)}:
                    telemetry_disk.segment_unreadable(entry.number, error)
                    known.doubt(fresh)  # else it was removed meanwhile, and the ledger has its numbers
        self._ledger.load_known(known, fresh)

    def _open(self) -> tuple[Segment, SegmentEntry, SealedSegment | None]:
        """The open segment, made if need be, and the one before it while its file is kept."""
        while True:
            entry = self._ledger.open_segment(self._now_us(), relative_path)
            path = self._root / entry.path
            fresh = not path.exists()
            self._step("segment.before_create")
            segment = Segment.create(path, entry.number, self._ledger.data_directory, entry.opened_us)
            # A run that slept here may have made the file of a removed segment anew: nobody would ever archive it.
            if entry in self._ledger.segments(OPEN):
                break
        if fresh:
            telemetry.segment_opened(entry.number, entry.path)
        before = [e for e in self._ledger.segments(SEALING, SEALED) if e.number < entry.number]
        return segment, entry, self._kept(before[-1]) if before else None

    def _kept(self, entry: SegmentEntry) -> SealedSegment:
        return SealedSegment(self._root / entry.path, settled=entry.state == SEALED)

    def turn_over(self, report: FlushReport, *, now: bool = False) -> None:
        """Seal the open segment when its time is over (or `now`), and finish every seal that a crash or reader held up.

        Steps: ledger `open -> sealing`, sealed mark inside the file, log moved into the file, ledger `-> sealed`.
        """
        for entry in self._ledger.segments(OPEN):
            if now or self._now_us() // self._segment_us > entry.opened_us // self._segment_us:
                self._step("seal.before_ledger")
                self._ledger.move_segment(entry.number, OPEN, SEALING)
        for entry in self._ledger.segments(SEALING):
            try:
                self._seal(entry, report)
            except (DBAPIError, CollectorError, OSError) as error:  # it stays `sealing`, and stops nothing else
                telemetry_disk.segment_unreadable(entry.number, error)
                if classify(error) == "damaged":
                    report.failed[f"segment {entry.number}"] = "damaged"

    def _seal(self, entry: SegmentEntry, report: FlushReport) -> None:
        """Mark, settle and count one segment; each step may be repeated."""
        begun_s = self._now_s()
        self._step("seal.before_mark")
        segment = Segment.create(self._root / entry.path, entry.number, self._ledger.data_directory, entry.opened_us)
        segment.seal(self._now_us())
        self._step("seal.after_mark")
        if not segment.settle():
            return
        self._step("seal.after_settle")
        sealed = SealedSegment(self._root / entry.path)
        rows = sum(holding.rows for holding in sealed.holdings())
        sealed_us = int(sealed.meta()["sealed_us"])
        if self._ledger.move_segment(entry.number, SEALING, SEALED, sealed_us=sealed_us, rows=rows):
            telemetry.segment_sealed(entry.number, rows, self._now_s() - begun_s)
            report.sealed.append(entry.number)


def _may_have_twins(batches: Sequence[Batch], oldest_us: int, segment_opened_us: int) -> bool:
    """The twin of an event that was received or happened before a segment, or early in it, may stand in the one before;
    so may that of an event early in an epoch. `oldest_us`: when the oldest event of `batches` was received or happened.

    Clocks choose only where to look; whether two events are one is decided by identity.
    """
    return oldest_us < segment_opened_us + WINDOW_US or any(
        batch.events and batch.events[0].received_us < batch.opened_us + WINDOW_US for batch in batches
    )
