"""What is missing of the last hour, by what is stored: found by time, through an index, without looking at anything older."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from app.pipeline.gaps import closed, states
from app.store.stored import Stored

HOUR_US = 3600 * 1_000_000


class Lately(NamedTuple):
    """Counts of records, not of events: `gaps_open` are still asked for, or cannot be told about yet."""

    gaps_open: int
    losses: int


def lately(stored: Callable[[], Stored], now_us: int) -> Lately | None:
    """Gaps that were seen in the last hour and are not closed, and losses that were declared for it; None where the
    ledger or a segment cannot be read."""
    since_us = now_us - HOUR_US
    try:
        records = stored().records
        gaps = records("gaps", since=("after_us", since_us))
        repairs = records("repairs", since=("found_us", since_us))
        losses = records("losses", since=("end_us", since_us))
    except (DBAPIError, OSError):
        return None
    return Lately(sum(not closed(gap) for gap in states(gaps, repairs)), len(losses))
