"""Health and readiness: what the customer's monitors ask for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.clock import wall_us
from app.errors import BufferUnavailable, CollectorError, LedgerElsewhere
from app.metrics import Series
from app.wiring import Wiring

#: Supervision runs every 3 s; without a sign of it for so long, beat or the worker is not running.
BEAT_AGE_S = 30
#: A flush or archive is late after several of its intervals, and this for a long run or a slow start.
LATE_INTERVALS, LATE_S = 3, 60
DROPPED: Series = ("collector_messages_dropped_total", ())


def health(wiring: Wiring, uptime_s: float) -> tuple[dict[str, Any], int]:
    """The customer's health document and its HTTP status: 503 when Redis is gone or no connection is up.

    `messages_dropped` counts all that ever were, by the sums in Redis; those of the last 5 minutes are `backpressure`.
    """
    names = list(wiring.streams)
    body: dict[str, Any] = {"status": "healthy", "uptime_seconds": int(uptime_s)}
    try:
        states, troubles = wiring.board.states(names), wiring.board.troubles()
        dropped, dropping = int(wiring.tally.sum(DROPPED)), wiring.board.dropping(names)
    except BufferUnavailable as error:
        body |= {"status": "unhealthy", "connections": {"up": 0, "total": len(names)}, "messages_dropped": 0}
        return body | {"degraded_reason": f"redis: {error}"}, 503
    up = sum(state["connection"] == "open" for state in states.values())
    body["connections"] = {"up": up, "total": len(names)}
    body["messages_dropped"] = dropped
    body["streams"] = [
        {key: state[key] for key in ("stream", "connection", "since_us", "why", "last_error", "feeds")}
        for state in states.values()
    ]
    if up == 0:
        return body | {"status": "unhealthy", "degraded_reason": "no connection is up"}, 503
    if up < len(names):
        return body | {"status": "degraded", "degraded_reason": "partial_connections"}, 200
    if dropping:
        return body | {"status": "degraded", "degraded_reason": "backpressure"}, 200
    for station, told in troubles.items():
        if told["level"] == "degraded":
            return body | {"status": "degraded", "degraded_reason": f"{station}: {told['detail']}"}, 200
    return body, 200


def ready(wiring: Wiring, uptime_s: float) -> tuple[dict[str, Any], int]:
    """200 when Redis answers, supervision has run lately, every stream has an owner and flush and archive are not late;
    else 503 and what is missing. Nothing is late before this process has been there for as long."""
    missing = []
    try:
        beat_s, now_s = wiring.board.last_beat_s(), wall_us() // 1_000_000
        if beat_s is None or now_s - beat_s > BEAT_AGE_S:
            missing.append("supervision has not run lately: is a beat and a worker of the default queue running?")
        if unowned := sorted(set(wiring.streams) - wiring.board.leased(list(wiring.streams))):
            missing.append(f"no worker has: {', '.join(unowned)}")
        missing += _late(wiring, now_s, uptime_s)
        with suppress(LedgerElsewhere):
            _ = wiring.ledger_here
    except (BufferUnavailable, CollectorError, OSError, SQLAlchemyError) as error:
        missing.append(str(error))
    return {"ready": not missing, "missing": missing}, 503 if missing else 200


def _late(wiring: Wiring, now_s: int, uptime_s: float) -> list[str]:
    """Flush and archive that should have run without trouble since. Raises: BufferUnavailable."""
    collector, done = wiring.settings.collector, wiring.board.successes()
    longest_s = {
        "flush": LATE_S + LATE_INTERVALS * collector.batch_interval_secs,
        "archive": LATE_S + LATE_INTERVALS * collector.archive_interval_secs + wiring.settings.archive.deadline_secs,
    }
    found = []
    for station, bound_s in longest_s.items():
        age_s = now_s - done[station] if station in done else None
        if (uptime_s if age_s is None else min(age_s, uptime_s)) > bound_s:
            when = "has not run without trouble yet" if age_s is None else f"last ran without trouble {age_s} s ago"
            found.append(f"{station} {when}, which should be every {bound_s:g} s at most: is its worker running?")
    return found
