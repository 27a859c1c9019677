"""What makes the health degraded although every connection is up, and what a stranger is told of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.web.application import application
from app.web.health import BEAT_AGE_S, bounds_s, health, in_short
from app.wiring import Wiring
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

OKX, BYBIT = "okx-0-orderbook.trade", "bybit-0-orderbook.trade"
TOKEN = "a-token-of-some-length"
LONG_S = 1e6


def state(stream: str, *feeds: str, **changes: Any) -> dict[str, Any]:
    """What a stream publishes of itself, with its feeds in these states."""
    return {
        "stream": stream, "connection": "open", "since_us": 1, "why": "", "last_error": "",
        "feeds": [{"state": feed} for feed in feeds],
    } | changes  # fmt: skip


@pytest.fixture
def wiring(rig: Rig) -> Wiring:
    """Everything is well for long, as the board has it."""
    rig.write({"okx": ["BTC-USDT"], "bybit": ["BTCUSDT"]}, collector={"batch_interval_secs": 5})
    wiring, now_s = rig.wiring(), int(time.time())
    for stream in (OKX, BYBIT):
        wiring.board.publish(stream, state(stream, "live", "quiet"), 30)
    wiring.board.beat(now_s)
    for station in ("flush", "archive"):
        wiring.board.succeeded(station, now_s)
    return wiring


def told(wiring: Wiring, uptime_s: float = LONG_S) -> tuple[str, str]:
    body, status = health(wiring, uptime_s)
    assert status == 200
    return body["status"], body.get("degraded_reason", "")


def test_a_flush_or_archive_that_is_late_degrades_the_health_once_there_was_time_for_it(wiring: Wiring) -> None:
    assert told(wiring) == ("healthy", "")
    for station, bound_s in bounds_s(wiring.settings).items():
        now_s = int(time.time())
        wiring.board.succeeded(station, now_s - int(bound_s) - 5)
        assert told(wiring, bound_s) == ("healthy", "")
        status, reason = told(wiring)
        assert status == "degraded"
        assert reason.startswith(f"{station} last ran without trouble ")
        wiring.board.succeeded(station, now_s)


def test_a_supervision_that_does_not_run_degrades_the_health(wiring: Wiring) -> None:
    wiring.board.beat(int(time.time()) - BEAT_AGE_S - 5)
    assert told(wiring, BEAT_AGE_S) == ("healthy", "")
    assert told(wiring) == (
        "degraded", "supervision has not run lately: is a beat and a worker of the default queue running?",
    )  # fmt: skip


def test_the_bounds_follow_from_the_intervals(rig: Rig) -> None:
    rig.write(collector={"batch_interval_secs": 25, "archive_interval_secs": 86_400}, archive={"deadline_secs": 900})
    assert bounds_s(rig.wiring().settings) == {"flush": 60 + 3 * 25, "archive": 60 + 3 * 86_400 + 900}


def test_a_venue_of_which_no_feed_has_data_degrades_the_health_and_a_single_silent_feed_does_not(
    wiring: Wiring,
) -> None:
    wiring.board.publish(OKX, state(OKX, "stale", "quiet"), 30)
    assert told(wiring) == ("healthy", "")
    wiring.board.publish(OKX, state(OKX, "stale", "rejected"), 30)
    assert told(wiring) == ("degraded", "no feed has data: okx (rejected, stale)")
    wiring.board.publish(OKX, state(OKX), 30)
    assert told(wiring) == ("healthy", "")


def test_a_full_redis_that_takes_no_word_of_connections_is_named_as_the_reason(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    rig = Rig(tmp_path, own_redis.url)
    rig.write({"okx": ["BTC-USDT"]})
    wiring = rig.wiring()
    assert health(wiring, LONG_S)[0]["degraded_reason"] == "no connection is up"
    assert wiring.lease(f"stream:{OKX}", 30).acquire()
    assert health(wiring, LONG_S)[0]["degraded_reason"] == "no connection is up"
    wiring.redis.config_set("maxmemory", 1)
    body, status = health(wiring, LONG_S)
    assert (body["status"], status, body["connections"]) == ("unhealthy", 503, {"up": 0, "total": 1})
    assert body["degraded_reason"] == "redis is full: 1 streams are run, into their spools, and cannot say how they are"


def test_what_a_station_says_itself_comes_before_that_it_is_late(wiring: Wiring) -> None:
    wiring.board.succeeded("flush", 1)
    wiring.board.trouble("flush", {"level": "degraded", "detail": "the disk is full: /data/x", "since_us": 1}, 60)
    assert told(wiring) == ("degraded", "flush: the disk is full: /data/x")


def test_in_short_there_are_the_customers_fields_and_words_of_ours() -> None:
    body = {
        "status": "degraded", "uptime_seconds": 7, "connections": {"up": 1, "total": 2}, "messages_dropped": 0,
        "streams": [state(OKX, last_error="go away")], "degraded_reason": "flush: /data/x cannot be written",
    }  # fmt: skip
    assert in_short(body) == {
        "status": "degraded", "uptime_seconds": 7, "connections": {"up": 1, "total": 2}, "messages_dropped": 0,
        "degraded_reason": "flush",
    }  # fmt: skip
    assert in_short({"ready": False, "missing": ["ledger: /data/x is gone", "redis: 10.0.0.7:6379 refused"]}) == {
        "ready": False, "missing": ["ledger", "redis"],
    }  # fmt: skip


async def _asked(wiring: Wiring, listens: str, path: str, name: str, **headers: str) -> dict[str, Any]:
    transport = httpx.ASGITransport(application(wiring, listens))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{name}") as client:
        answer: dict[str, Any] = (await client.get(path, headers=headers)).json()
        return answer


@pytest.mark.parametrize(
    ("listens", "name", "token", "headers", "knows"),
    [
        ("127.0.0.1", "127.0.0.1", None, {}, True),
        ("127.0.0.1", "evil.example", None, {}, False),
        ("0.0.0.0", "collector.example", None, {}, False),
        ("0.0.0.0", "collector.example", TOKEN, {}, False),
        ("0.0.0.0", "collector.example", TOKEN, {"authorization": f"Bearer {TOKEN}x"}, False),
        ("0.0.0.0", "collector.example", TOKEN, {"authorization": f"Bearer {TOKEN}"}, True),
    ],
)
def test_who_may_not_see_the_rest_is_answered_in_short(
    rig: Rig, listens: str, name: str, token: str | None, headers: dict[str, str], knows: bool
) -> None:
    rig.write({"okx": ["BTC-USDT"], "bybit": ["BTCUSDT"]}, web={"token": token} if token else {})
    wiring = rig.wiring()
    wiring.board.publish(OKX, state(OKX, why="the venue's words"), 30)
    body = asyncio.run(_asked(wiring, listens, "/health", name, **headers))
    assert (body["degraded_reason"], body["connections"]) == ("partial_connections", {"up": 1, "total": 2})
    assert ("streams" in body) is knows
    missing = asyncio.run(_asked(wiring, listens, "/ready", name, **headers))["missing"]
    assert (f"streams that no worker has: {BYBIT}, {OKX}" in missing) is knows
    assert ("streams that no worker has" in missing) is not knows
