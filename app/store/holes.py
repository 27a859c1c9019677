"""Holes in the numbers of an epoch: what was pushed, and never came out of Redis or the spool, though later numbers did.

A Redis that forgets (restarted without its append-only file, emptied, replaced by an older copy) and a damaged spool file
leave nothing behind but this. The numbers say which units are missing, whoever lost them.
"""

from __future__ import annotations

import msgspec

from app import telemetry
from app.model import BUFFER_LOST, Batch, Event, Loss, Quarantined, Range
from app.store.known import KnownRanges


def with_holes(batch: Batch, known: KnownRanges) -> Batch:
    """`batch`, with the holes that it shows among its losses; `known` has its ranges already, and learns its losses.

    Shown by a range that does not follow what is stored, and by the last numbers of an epoch that ends. A loss of unknown
    extent names no number: what is stored beyond it shows how much was lost.
    """
    for loss in (loss for loss in batch.losses if loss.count is not None):
        known.lose(batch.epoch, loss.symbol, loss.feed, loss.first, loss.last)
    last = batch.end.last_numbers if batch.end is not None else ()
    found = []
    for shows in (*batch.ranges, *(Range(r.symbol, r.feed, r.last + 1, r.last) for r in last)):
        for first, last_missing in known.hole_before(batch.epoch, shows):
            found.append(_loss(batch, known, shows, first, last_missing))
            known.lose(batch.epoch, shows.symbol, shows.feed, first, last_missing)
    return msgspec.structs.replace(batch, losses=(*batch.losses, *found)) if found else batch


def _loss(batch: Batch, known: KnownRanges, shows: Range, first: int, last: int) -> Loss:
    """The declaration, from the last event of the feed that is stored below the hole to the unit that showed it."""
    start_us = known.received_before(batch.epoch, shows.symbol, shows.feed, first) or batch.opened_us
    units: tuple[Event | Quarantined, ...] = (*batch.events, *batch.quarantined)
    same = (u for u in units if (u.symbol, u.feed, u.number) == (shows.symbol, shows.feed, shows.first))
    end_us = next((unit.received_us for unit in same), batch.end.ended_us if batch.end is not None else start_us)
    telemetry.hole_found(batch.stream, batch.epoch, shows.symbol, shows.feed, first, last)
    return Loss(shows.symbol, shows.feed, first, last, last - first + 1, start_us, end_us, BUFFER_LOST)
