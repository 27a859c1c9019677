"""Health and readiness: what the customer's monitors ask for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.clock import wall_us
from app.config import Settings
from app.errors import BufferUnavailable, CollectorError, LedgerElsewhere
from app.metrics import Series
from app.wiring import Wiring

#: Supervision runs every 3 s; without a sign of it for so long, beat or the worker is not running.
BEAT_AGE_S = 30
#: A flush or archive is late after several of its intervals, and this for a long run or a slow start.
LATE_INTERVALS, LATE_S = 3, 60
#: States of a feed of which nothing comes, and for which waiting a moment is no help.
SILENT = ("stale", "halted", "rejected")
DROPPED: Series = ("collector_messages_dropped_total", ())
#: What the customer's document has; the rest is for whoever may see everything.
CUSTOMERS = ("status", "uptime_seconds", "connections", "messages_dropped", "degraded_reason")


def bounds_s(settings: Settings) -> dict[str, float]:
    """Station -> how long after its last run without trouble it is late, seconds; it follows from its interval."""
    collector = settings.collector
    return {
        "flush": LATE_S + LATE_INTERVALS * collector.batch_interval_secs,
        "archive": LATE_S + LATE_INTERVALS * collector.archive_interval_secs + settings.archive.deadline_secs,
    }


def in_short(body: dict[str, Any]) -> dict[str, Any]:
    """The answer of `health` or `ready` for whoever has not said who he is: its reasons up to their colon.

    What stands before it are words of ours; what follows names hosts, paths and markets, or is what somebody else said.
    """
    short = {key: body[key] for key in (*CUSTOMERS, "ready", "missing") if key in body}
    if "degraded_reason" in short:
        short["degraded_reason"] = short["degraded_reason"].partition(":")[0]
    if "missing" in short:
        short["missing"] = [line.partition(":")[0] for line in short["missing"]]
    return short


def health(wiring: Wiring, uptime_s: float) -> tuple[dict[str, Any], int]:
    """The customer's health document and its HTTP status: 503 when Redis is gone or no connection is up.

    `messages_dropped` counts all that ever were, by the sums in Redis; those of the last 5 minutes are `backpressure`.
    """
    names = list(wiring.streams)
    body: dict[str, Any] = {"status": "healthy", "uptime_seconds": int(uptime_s)}
    try:
        states, troubles = wiring.board.states(names), wiring.board.troubles()
        dropped, dropping = int(wiring.tally.sum(DROPPED)), wiring.board.dropping(names)
        late = _late(wiring, now_s := wall_us() // 1_000_000, uptime_s)
        late += _unsupervised(wiring, now_s) if uptime_s > BEAT_AGE_S else []
        up = sum(state["connection"] == "open" for state in states.values())
        nobody = _nobody(wiring) if up == 0 else ""
    except BufferUnavailable as error:
        body |= {"status": "unhealthy", "connections": {"up": 0, "total": len(names)}, "messages_dropped": 0}
        return body | {"degraded_reason": f"redis: {error}"}, 503
    body["connections"] = {"up": up, "total": len(names)}
    body["messages_dropped"] = dropped
    body["streams"] = [
        {key: state[key] for key in ("stream", "connection", "since_us", "why", "last_error", "feeds")}
        for state in states.values()
    ]
    if up == 0:
        return body | {"status": "unhealthy", "degraded_reason": nobody}, 503
    reasons = ["partial_connections"] if up < len(names) else []
    reasons += ["backpressure"] if dropping else []
    reasons += [f"{name}: {told['detail']}" for name, told in troubles.items() if told["level"] == "degraded"]
    reasons += late
    if silent := _silent(wiring, states):
        reasons.append(f"no feed has data: {', '.join(silent)}")
    return body | ({"status": "degraded", "degraded_reason": reasons[0]} if reasons else {}), 200


def ready(wiring: Wiring, uptime_s: float) -> tuple[dict[str, Any], int]:
    """200 when Redis answers, supervision has run lately, every stream has an owner and flush and archive are not late;
    else 503 and what is missing. Flush and archive are not late before this process has been there for as long."""
    missing = []
    try:
        now_s = wall_us() // 1_000_000
        missing += _unsupervised(wiring, now_s)
        if unowned := sorted(set(wiring.streams) - wiring.board.leased(list(wiring.streams))):
            missing.append(f"streams that no worker has: {', '.join(unowned)}")
        missing += _late(wiring, now_s, uptime_s)
        with suppress(LedgerElsewhere):
            _ = wiring.ledger_here
    except BufferUnavailable as error:
        missing.append(f"redis: {error}")
    except (CollectorError, OSError, SQLAlchemyError) as error:
        missing.append(f"ledger: {error}")
    return {"ready": not missing, "missing": missing}, 503 if missing else 200


def _nobody(wiring: Wiring) -> str:
    """Why no connection is known to be up: a full Redis takes no word of those that are. Raises: BufferUnavailable."""
    used, most = wiring.buffer.memory()
    run = len(wiring.board.leased(list(wiring.streams)))
    if run and 0 < most <= used:
        return f"redis is full: {run} streams are run, into their spools, and cannot say how they are"
    return "no connection is up"


def _unsupervised(wiring: Wiring, now_s: int) -> list[str]:
    """That supervision has not run lately, where it has not. Raises: BufferUnavailable."""
    beat_s = wiring.board.last_beat_s()
    if beat_s is not None and now_s - beat_s <= BEAT_AGE_S:
        return []
    return ["supervision has not run lately: is a beat and a worker of the default queue running?"]


def _late(wiring: Wiring, now_s: int, uptime_s: float) -> list[str]:
    """Flush and archive that should have run without trouble since. Raises: BufferUnavailable."""
    done = wiring.board.successes()
    found = []
    for station, bound_s in bounds_s(wiring.settings).items():
        age_s = now_s - done[station] if station in done else None
        if (uptime_s if age_s is None else min(age_s, uptime_s)) > bound_s:
            when = "has not run without trouble yet" if age_s is None else f"last ran without trouble {age_s} s ago"
            found.append(f"{station} {when}, which should be every {bound_s:g} s at most: is its worker running?")
    return found


def _silent(wiring: Wiring, states: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Venues with feeds of which every single one is silent, each with the states they are in."""
    found: dict[str, set[str]] = {}
    for name, state in states.items():
        found.setdefault(wiring.streams[name].exchange, set()).update(feed["state"] for feed in state["feeds"])
    return [
        f"{venue} ({', '.join(sorted(all_))})" for venue, all_ in sorted(found.items()) if all_ and all_ <= set(SILENT)
    ]
