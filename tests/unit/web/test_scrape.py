"""Gauges of a scrape: what is late and full by the settings, and what nobody can say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from app.buffer.spool import Bound, Spool
from app.errors import BufferFull
from app.pipeline.room import PLENTY_BYTES, judge
from app.wiring import Wiring
from tests.support.counting import Samples, scraped
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

OKX, BYBIT = "okx-0-orderbook.trade", "bybit-0-orderbook.trade"
MARKETS = {"okx": ["BTC-USDT"], "bybit": ["BTCUSDT"]}


def values(found: Samples, name: str) -> dict[tuple[str, ...], float]:
    """Values of a gauge by the values of its labels."""
    return {
        tuple(value for _, value in labels): value
        for (sample, labels), value in found.items()
        if sample == f"collector_{name}"
    }


def state(**changes: Any) -> dict[str, Any]:
    return {"connection": "open", "feeds": [], "queued": 3, "spool_bytes": 500, "spool_events": 7} | changes


def test_bounds_follow_from_the_settings(rig: Rig) -> None:
    rig.write(
        MARKETS, collector={"batch_interval_secs": 5, "archive_interval_secs": 3600}, storage={"segment_secs": 300}
    )
    found = scraped(rig.wiring())
    assert values(found, "station_bound_seconds") == {("flush",): 75, ("archive",): 11_160}
    assert values(found, "segments_bound") == {(): pytest.approx(3 + 11_160 / 300)}


def test_a_large_disk_with_room_is_at_no_level_whatever_its_share(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.write(MARKETS)

    def levels(free: int) -> tuple[float, dict[tuple[str, ...], float]]:
        wiring = rig.wiring()
        _ = wiring.ledger
        monkeypatch.setattr(wiring.disk, "room", lambda: judge(0, 0, "data", 99 * PLENTY_BYTES["low"], free))
        found = scraped(wiring)
        return round(found["collector_disk_used_ratio", ()], 2), values(found, "disk_level")

    assert levels(PLENTY_BYTES["low"]) == (0.99, {("low",): 0, ("full",): 0})
    assert levels(PLENTY_BYTES["low"] - 1) == (0.99, {("low",): 1, ("full",): 0})
    assert levels(PLENTY_BYTES["full"] - 1) == (0.99, {("low",): 0, ("full",): 1})


def test_the_age_is_that_of_the_oldest_gap_that_is_open(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.write(MARKETS)
    wiring, now_us = rig.wiring(), time.time_ns() // 1000
    gap = {"exchange": "okx", "symbol": "BTC-USDT", "feed": "trade", "epoch": "e"}
    gaps = [{**gap, "number": n, "after_us": now_us - age_s * 1_000_000} for n, age_s in ((1, 9000), (2, 600), (3, 60))]
    repairs = [{**gap, "number": 1, "state": "repaired", "found": 1, "detail": "", "found_us": now_us}]
    rows: dict[str, list[dict[str, Any]]] = {"gaps": gaps, "repairs": repairs}
    monkeypatch.setattr(wiring.stored, "records", lambda name, since: rows[name])
    found = scraped(wiring)
    assert 600 <= found["collector_oldest_open_gap_seconds", ()] < 630
    assert values(found, "gaps")[("open",)] == 2
    gaps.clear()
    assert scraped(wiring)["collector_oldest_open_gap_seconds", ()] == 0


@pytest.fixture
def spooling(own_redis: RedisProcess, tmp_path: Path) -> Wiring:
    """OKX says what it does; Bybit is held by somebody, who has 20 bytes in the spool here and whose state has run out."""
    rig = Rig(tmp_path, own_redis.url)
    rig.write(MARKETS, redis={"timeout_secs": 0.3}, spool={"dir": str(tmp_path / "spool")})
    wiring = rig.wiring()
    wiring.board.publish(OKX, state(feeds=[]), 30)
    assert wiring.lease(f"stream:{BYBIT}", 30).acquire()
    spool = Spool(Bound(tmp_path / "spool", 1000, time.monotonic), BYBIT)
    assert spool.lock()
    spool.append(b"x" * 12)
    return wiring


def test_of_a_stream_that_says_nothing_the_disk_says_what_is_spooled_and_the_rest_is_left_out(
    spooling: Wiring, own_redis: RedisProcess
) -> None:
    found = scraped(spooling)
    assert values(found, "spool_bytes") == {(OKX,): 500, (BYBIT,): 20}
    assert values(found, "spool_events") == {(OKX,): 7}
    assert values(found, "memory_queue_events") == {(OKX,): 3}
    assert values(found, "websocket_connected") == {("okx", "BTC-USDT"): 1}, "bybit may well be connected"
    own_redis.kill()
    found = scraped(spooling)
    assert found["collector_redis_up", ()] == 0
    assert values(found, "spool_bytes") == {(BYBIT,): 20}


def test_a_full_redis_keeps_the_leases_of_streams_though_it_takes_no_states(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    """Or it would be said that nobody has the streams."""
    rig = Rig(tmp_path, own_redis.url)
    wiring = rig.wiring()
    lease = wiring.lease(f"stream:{OKX}", 30)
    assert lease.acquire()
    wiring.redis.config_set("maxmemory", 1)
    with pytest.raises(BufferFull):
        wiring.board.publish(OKX, state(), 30)
    assert lease.renew().value == "ours"
    assert wiring.board.leased([OKX]) == {OKX}
