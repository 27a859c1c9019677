"""One function per fact that is counted and not logged: it happens all the time. What is logged too is in telemetry.py."""

from __future__ import annotations

from collections.abc import Mapping

from app import metrics

Feed = tuple[str, str, str]
"""exchange, symbol, data type"""


def received(feed: Feed, events: int) -> None:
    metrics.RECEIVED.labels(*feed).inc(events)


def came_again(feed: Feed, events: int) -> None:
    """On one connection."""
    metrics.SEQUENCE_DUPLICATES.labels(*feed).inc(events)


def came_late(feed: Feed, events: int) -> None:
    """After one that is newer, on one connection."""
    metrics.OUT_OF_ORDER.labels(*feed).inc(events)


def pinged(exchange: str, times: int) -> None:
    metrics.PINGS.labels(exchange).inc(times)


def ponged(exchange: str, times: int) -> None:
    metrics.PONGS.labels(exchange).inc(times)


def latency_seen(feed: Feed, counts: list[int], sum_ms: float, negative: int) -> None:
    """`counts`: events in each bucket of `latency_exchange_to_collector_ms`, the last beyond all bounds."""
    metrics.LATENCY_MS.labels(*feed).add(counts, sum_ms)
    if negative:
        metrics.LATENCY_NEGATIVE.labels(*feed).inc(negative)


def batch_spooled(exchange: str) -> None:
    metrics.SPOOLED.labels(exchange).inc()


# flush


def claim_committed(seconds: float, stored: int) -> None:
    metrics.DB_WRITE_SECONDS.labels("insert").observe(seconds)
    metrics.DB_WRITTEN.inc(stored)


def feed_committed(feed: Feed, *, stored: int, duplicates: int, quarantined: int, replays: int, fetched: int) -> None:
    """What became of the events of one feed in a commit; `fetched`: of them, those that no connection brought."""
    for metric, events in (
        (metrics.STORED, stored),
        (metrics.DUPLICATES, duplicates),
        (metrics.QUARANTINED, quarantined),
        (metrics.REPLAYED, replays),
        (metrics.RECEIVED, fetched),
    ):
        if events:
            metric.labels(*feed).inc(events)


def losses_committed(
    lost: Mapping[tuple[str, str, str, str], int], declared: Mapping[tuple[str, str, str, str], int]
) -> None:
    """(exchange, symbol, data type, cause) -> events that are declared lost from this commit on, and declarations."""
    for labels, events in lost.items():
        metrics.LOST.labels(*labels).inc(events)
    for labels, losses in declared.items():
        metrics.LOSSES.labels(*labels).inc(losses)
