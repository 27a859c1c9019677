"""Health and readiness: what the customer's monitors ask for."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.clock import wall_us
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
