"""Health, readiness and metrics over HTTP. Everything is computed when asked, from Redis and the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.clock import monotonic_s, wall_us
from app.errors import BufferUnavailable, CollectorError
from app.wiring import Wiring

#: Supervision runs every 3 s; without a sign of it for so long, beat or the worker is not running.
BEAT_AGE_S = 30


def health(wiring: Wiring, uptime_s: float) -> tuple[dict[str, Any], int]:
    """The customer's health document and its HTTP status: 503 when Redis is gone or no connection is up."""
    names = list(wiring.streams)
    body: dict[str, Any] = {"status": "healthy", "uptime_seconds": int(uptime_s)}
    try:
        states, troubles = wiring.board.states(names), wiring.board.troubles()
    except BufferUnavailable as error:
        body |= {"status": "unhealthy", "connections": {"up": 0, "total": len(names)}, "messages_dropped": 0}
        return body | {"degraded_reason": f"redis: {error}"}, 503
    up = sum(state["connection"] == "open" for state in states.values())
    body["connections"] = {"up": up, "total": len(names)}
    body["messages_dropped"] = sum(state["refused"] for state in states.values())
    body["streams"] = [
        {key: state[key] for key in ("stream", "connection", "since_us", "why", "last_error", "feeds")}
        for state in states.values()
    ]
    if up == 0:
        return body | {"status": "unhealthy", "degraded_reason": "no connection is up"}, 503
    if up < len(names):
        return body | {"status": "degraded", "degraded_reason": "partial_connections"}, 200
    if body["messages_dropped"]:
        return body | {"status": "degraded", "degraded_reason": "backpressure"}, 200
    for station, told in troubles.items():
        if told["level"] == "degraded":
            return body | {"status": "degraded", "degraded_reason": f"{station}: {told['detail']}"}, 200
    return body, 200


def ready(wiring: Wiring) -> tuple[dict[str, Any], int]:
    """200 when Redis answers, supervision has run lately and every stream has an owner; else 503 and what is missing."""
    missing = []
    try:
        beat_s = wiring.board.last_beat_s()
        if beat_s is None or wall_us() // 1_000_000 - beat_s > BEAT_AGE_S:
            missing.append("supervision has not run lately: is a beat and a worker of the default queue running?")
        if unowned := sorted(set(wiring.streams) - wiring.board.leased(list(wiring.streams))):
            missing.append(f"no worker has: {', '.join(unowned)}")
        _ = wiring.ledger
    except (BufferUnavailable, CollectorError, OSError, SQLAlchemyError) as error:
        missing.append(str(error))
    return {"ready": not missing, "missing": missing}, 503 if missing else 200


class Facts:
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


def application(wiring: Wiring) -> Starlette:
    """The ASGI application. Redis and SQLite are asked on a thread of the pool, never on the event loop."""
    started_s, started_us = monotonic_s(), wall_us()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Facts(wiring, started_us // 1_000_000))

    async def get_health(_: Request) -> Response:
        body, status = await run_in_threadpool(health, wiring, monotonic_s() - started_s)
        return JSONResponse(body, status)

    async def get_ready(_: Request) -> Response:
        body, status = await run_in_threadpool(ready, wiring)
        return JSONResponse(body, status)

    async def get_metrics(_: Request) -> Response:
        text = await run_in_threadpool(generate_latest, registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(routes=[Route("/health", get_health), Route("/ready", get_ready), Route("/metrics", get_metrics)])
