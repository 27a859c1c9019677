"""How late events come: receive time minus exchange time, feed by feed, in one pass over a batch.

Runs on the carrier's thread. The pass only adds to lists of its own; what they hold goes into the metrics once a second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from app import telemetry_counts
from app.metrics import LATENCY_BUCKETS_MS
from app.model import Event

#: Upper bounds in microseconds: below 0 first, then the buckets.
_BOUNDS_US = (-1, *(bound * 1000 for bound in LATENCY_BUCKETS_MS))
#: The smallest difference is that of this span and the one before.
OFFSET_SPAN_S = 60.0


class Latency:
    """The events of one stream."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        #: (symbol, feed) -> events by bucket, then the sum of what is not negative, in microseconds.
        self._feeds: dict[tuple[str, str], list[int]] = {}
        self._least_us: int | None = None
        self._least_before_us: int | None = None
        self._span_s: float | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Look at each event once."""
        feeds, bounds, least_us = self._feeds, _BOUNDS_US, self._least_us
        for event in events:
            exchange_us = event.exchange_us
            if exchange_us is None:
                continue
            late_us = event.received_us - exchange_us
            try:
                counts = feeds[event.symbol, event.feed]
            except KeyError:
                counts = feeds[event.symbol, event.feed] = [0] * (len(bounds) + 2)
            counts[bisect_left(bounds, late_us)] += 1
            if late_us > 0:
                counts[-1] += late_us
            if least_us is None or late_us < least_us:
                least_us = late_us
        self._least_us = least_us

    def report(self) -> None:
        """Bring what was added since the last time into the metrics."""
        for (symbol, feed), counts in self._feeds.items():
            if any(counts):
                feed_counts, sum_us = counts[1:-1], counts[-1]
                telemetry_counts.latency_seen((self._exchange, symbol, feed), feed_counts, sum_us / 1000, counts[0])
                counts[:] = [0] * len(counts)

    def offset_us(self, now_s: float) -> int | None:
        """The smallest difference of the last one or two minutes; None where no event of them had an exchange time."""
        if self._span_s is None:
            self._span_s = now_s
        if now_s - self._span_s >= OFFSET_SPAN_S:
            self._least_before_us, self._least_us, self._span_s = self._least_us, None, now_s
        known = [us for us in (self._least_us, self._least_before_us) if us is not None]
        return min(known, default=None)
