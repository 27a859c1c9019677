"""What a scrape asks of the ledger, counted by SQLite."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select

from app.store.engine import readonly
from app.store.ledger import OPEN, REMOVED, REMOVING, SEALED, SEALING, VERIFIED, WRITTEN, Ledger
from app.store.schema import objects, segments


class Figures(NamedTuple):
    """`segments` and `objects` by state, each state named."""

    segments: dict[str, int]
    objects: dict[str, int]
    #: Store -> bytes of its verified objects.
    store_bytes: dict[str, int]
    #: Rows of sealed segments that are not in a verified object of every store, and when the oldest of these was sealed.
    unarchived_rows: int
    unarchived_since_us: int | None


def figures(ledger: Ledger, stores: tuple[str, ...]) -> Figures:
    """As of now. An index of every object is read (100,000 took 80 ms): ask more seldom the longer it takes.

    Raises: SQLAlchemy's errors for an unusable ledger.
    """
    by_segment = dict.fromkeys((OPEN, SEALING, SEALED, REMOVING, REMOVED), 0)
    by_object = dict.fromkeys((WRITTEN, VERIFIED), 0)
    store_bytes = dict.fromkeys(stores, 0)
    with readonly(ledger.path).connect() as connection:
        for state, count in connection.execute(select(segments.c.state, func.count()).group_by(segments.c.state)):
            by_segment[state] = count
        summed = select(objects.c.store, objects.c.state, func.count(), func.sum(objects.c.size_bytes))
        for store, state, count, size in connection.execute(summed.group_by(objects.c.store, objects.c.state)):
            by_object[state] = by_object.get(state, 0) + count
            if state == VERIFIED:
                store_bytes[store] = size
        sealed = connection.execute(
            select(segments.c.number, segments.c.sealed_us, segments.c.rows)
            .where(segments.c.state == SEALED)
            .order_by(segments.c.number)
        ).all()
        held = select(objects.c.segment, objects.c.store, func.sum(objects.c.rows)).where(
            objects.c.segment.in_([entry.number for entry in sealed]), objects.c.state == VERIFIED
        )
        verified = {
            (n, s): rows for n, s, rows in connection.execute(held.group_by(objects.c.segment, objects.c.store))
        }
    left, since_us = 0, None
    for number, sealed_us, rows in sealed:
        missing = (rows or 0) - min((verified.get((number, store), 0) for store in stores), default=0)
        if missing > 0:
            left, since_us = left + missing, sealed_us if since_us is None else since_us
    return Figures(by_segment, by_object, store_bytes, left, since_us)
