"""One scrape: the counts of all processes from Redis, and gauges computed now from Redis and the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError

from app.errors import BufferUnavailable
from app.wiring import Wiring


class Scrape:
    """A Prometheus collector that looks at Redis and the ledger at each scrape."""

    def __init__(self, wiring: Wiring, started_s: float) -> None:
        self._wiring, self._started_s = wiring, started_s

    def collect(self) -> Iterator[Metric]:
        """Every metric; those of Redis are left out while it does not answer."""
        started = GaugeMetricFamily("collector_start_timestamp_seconds", "When this web process started, Unix seconds.")
        started.add_metric([], self._started_s)
        yield started
        redis_up = GaugeMetricFamily("collector_redis_up", "1 when Redis answered this scrape.")
        try:
            found = list(self._redis())
            redis_up.add_metric([], 1)
        except BufferUnavailable:
            found = []
            redis_up.add_metric([], 0)
        yield redis_up
        yield from found
        with suppress(SQLAlchemyError):  # a busy ledger costs one scrape its own figures, not all
            yield from list(self._ledger())

    def _redis(self) -> Iterator[Metric]:
        states = self._wiring.board.states(list(self._wiring.streams))
        connected = GaugeMetricFamily(
            "collector_websocket_connected", "1 while the connection that carries the symbol is open.",
            labels=["exchange", "symbol"],
        )  # fmt: skip
        age = GaugeMetricFamily(
            "collector_feed_age_seconds",
            "Seconds since the last data of a feed.",
            labels=["exchange", "symbol", "data_type"],
        )
        for stream in self._wiring.streams.values():
            state = states.get(stream.name)
            for symbol in stream.subscription.symbols:
                connected.add_metric([stream.exchange, symbol], float(bool(state and state["connection"] == "open")))
            for feed in state["feeds"] if state else []:
                age.add_metric([stream.exchange, feed["symbol"], feed["feed"]], feed["age_s"])
        yield connected
        yield age
        batches = GaugeMetricFamily("collector_buffer_batches", "Batches in the Redis list.", labels=["stream"])
        events = GaugeMetricFamily("collector_channel_queue_depth", "Events in the Redis list.", labels=["stream"])
        size = GaugeMetricFamily("collector_buffer_bytes", "Bytes in the Redis list.", labels=["stream"])
        depths = {depth.stream: depth for depth in self._wiring.buffer.depths()}
        for name in sorted(set(self._wiring.streams) | depths.keys()):
            depth = depths.get(name)
            batches.add_metric([name], depth.batches if depth else 0)
            events.add_metric([name], depth.events if depth else 0)
            size.add_metric([name], depth.bytes if depth else 0)
        yield from (batches, events, size)

    def _ledger(self) -> Iterator[Metric]:
        ledger = self._wiring.ledger
        by_state, verified, rows = ledger.totals()
        segments = GaugeMetricFamily("collector_segments", "Segments by state.", labels=["state"])
        for state, count in by_state.items():
            segments.add_metric([state], count)
        yield segments
        yield CounterMetricFamily("collector_objects_verified", "Objects proved equal in the store.", verified)
        yield CounterMetricFamily("collector_snapshots_archived", "Rows in verified objects.", rows)
