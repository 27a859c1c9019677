"""Health, readiness and metrics as a monitor sees them, over real streams and a real Redis that comes and goes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.codec import BatchCodec
from app.pipeline import periodic
from app.pipeline.supervise import dispatch
from app.web.application import application
from app.web.health import DROPPED, health, ready
from app.wiring import Wiring
from tests.support import batches as made
from tests.support import prometheus
from tests.support.counting import Samples, by_feed, reporter, samples, scraped, total
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, Collecting, archived, finish, segment_files, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

BYBIT, OKX = "bybit-0-orderbook.trade", "okx-0-orderbook.trade"


class Client:
    """Asks the application of a wiring as a server would let it be asked."""

    def __init__(self, wiring: Wiring) -> None:
        self._transport = httpx.ASGITransport(application(wiring))

    def get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://127.0.0.1", timeout=30) as client:
                return await client.get(path)

        return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks twice within a second is told of the second time."""
    monkeypatch.setattr("app.web.application.OPEN_S", 0.0)


def metrics(client: Client) -> Samples:
    """Samples by name and labels, read as Prometheus reads them."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.text)


def state(stream: str, **changes: Any) -> dict[str, Any]:
    """What a stream publishes of itself."""
    return {
        "stream": stream, "connection": "open", "since_us": 1, "why": "", "last_error": "", "refused": 0, "feeds": [],
    } | changes  # fmt: skip


def publish(wiring: Wiring, *states: dict[str, Any]) -> None:
    for one in states:
        wiring.board.publish(one["stream"], one, 30)


def test_what_streams_do_shows_in_health_readiness_and_metrics(
    rig: Rig, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    server = exchange_server(rate=20)
    rig.write({"bybit": ["BTCUSDT"], "okx": ["BTC-USDT"]}, server.venues)
    wiring = rig.wiring()
    counts = reporter(wiring)
    client = Client(rig.wiring())

    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (
        503,
        {
            "status": "unhealthy", "uptime_seconds": 0, "connections": {"up": 0, "total": 2}, "messages_dropped": 0,
            "streams": [], "degraded_reason": "no connection is up",
        },
    )  # fmt: skip
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert f"streams that no worker has: {BYBIT}, {OKX}" in answer.json()["missing"]

    with Collecting(wiring, BYBIT) as one:
        until(one.live, "Bybit is live")
        answer = client.get("/health")
        body = answer.json()
        assert (answer.status_code, body["status"], body["degraded_reason"]) == (200, "degraded", "partial_connections")
        assert body["connections"] == {"up": 1, "total": 2}
        with Collecting(wiring, OKX) as other:
            until(other.live, "OKX is live")
            assert dispatch(wiring, 15, lambda stream, worker: pytest.fail(f"{stream} has a lease")) == []
            body = client.get("/health").json()
            assert (body["status"], body["connections"]) == ("healthy", {"up": 2, "total": 2})
            assert {(s["stream"], f["symbol"], f["feed"], f["state"]) for s in body["streams"] for f in s["feeds"]} == {
                (BYBIT, "BTCUSDT", "orderbook", "live"), (BYBIT, "BTCUSDT", "trade", "live"),
                (OKX, "BTC-USDT", "orderbook", "live"), (OKX, "BTC-USDT", "trade", "live"),
            }  # fmt: skip
            answer = client.get("/ready")
            assert (answer.status_code, answer.json()) == (200, {"ready": True, "missing": []})
            found = metrics(client)
            assert found["collector_redis_up", ()] == 1
            connected = {labels: value for (name, labels), value in found.items() if name.endswith("_connected")}
            assert connected == {
                (("exchange", "bybit"), ("symbol", "BTCUSDT")): 1,
                (("exchange", "okx"), ("symbol", "BTC-USDT")): 1,
            }
            ages = {labels: value for (name, labels), value in found.items() if name == "collector_feed_age_seconds"}
            assert {tuple(value for _, value in labels) for labels in ages} == {
                (feed, name, symbol)
                for name, symbol in (("bybit", "BTCUSDT"), ("okx", "BTC-USDT"))
                for feed in ("orderbook", "trade")
            }
            assert all(0 <= age < 10 for age in ages.values())
            server.halt()
    depths = {depth.stream: depth for depth in wiring.buffer.depths()}
    found = metrics(client)
    for name in (BYBIT, OKX):
        labels = (("stream", name),)
        assert found["collector_buffer_batches", labels] == depths[name].batches > 0
        assert found["collector_buffer_events", labels] == depths[name].events > 0
        assert found["collector_buffer_bytes", labels] == depths[name].bytes > 0
        assert 0 < found["collector_oldest_unstored_seconds", labels] < 60
    assert found["collector_channel_queue_depth", ()] == sum(depth.events for depth in depths.values())

    periodic.flush(wiring, NEVER)
    assert metrics(Client(wiring))["collector_segments", (("state", "open"),)] == 1
    finish(wiring)
    counts.report()
    found = metrics(Client(wiring))
    rows = archived(wiring)
    assert found["collector_segments", (("state", "open"),)] == 0
    assert found["collector_segments", (("state", "removed"),)] == 1
    assert found["collector_objects", (("state", "verified"),)] == len(rows) == 4
    assert found["collector_snapshots_archived_total", ()] == sum(map(len, rows.values()))
    assert found["collector_channel_queue_depth", ()] == 0


def test_refused_events_degrade_the_health(rig: Rig) -> None:
    rig.write({"bybit": ["BTCUSDT"], "okx": ["BTC-USDT"]})
    wiring = rig.wiring()
    wiring.tally.add("a process", 1, {DROPPED: 7.0})
    publish(wiring, state(BYBIT), state(OKX))
    body = Client(rig.wiring()).get("/health").json()
    assert (body["status"], body["messages_dropped"]) == ("healthy", 7), "that was longer ago than five minutes"
    wiring.board.publish(OKX, state(OKX), 30, dropped=True)
    answer = Client(rig.wiring()).get("/health")
    body = answer.json()
    assert (answer.status_code, body["status"], body["degraded_reason"]) == (200, "degraded", "backpressure")
    assert body["messages_dropped"] == 7


def test_refusals_are_remembered_for_five_minutes_although_their_stream_is_gone(rig: Rig) -> None:
    wiring = rig.wiring()
    wiring.board.publish(OKX, state(OKX), 0.05, dropped=True)
    until(lambda: not wiring.board.states([OKX]), "the state has run out")
    assert wiring.board.dropping([BYBIT, OKX]) == [OKX]
    assert 290 < wiring.redis.ttl(f"{rig.prefix}:dropped:{OKX}") <= 300


def test_a_flush_or_archive_that_should_have_run_is_missing_once_there_was_time_for_it(rig: Rig) -> None:
    rig.write({"okx": ["BTC-USDT"]}, collector={"batch_interval_secs": 5, "archive_interval_secs": 3600})
    wiring = rig.wiring()
    bounds = {"flush": 60 + 3 * 5, "archive": 60 + 3 * 3600 + 300}

    def late(uptime_s: float) -> set[str]:
        body, status = ready(wiring, uptime_s)
        assert status == 503  # for want of beat and workers
        return {line.split()[0] for line in body["missing"] if "without trouble" in line}

    assert [late(bound + 1) for bound in bounds.values()] == [{"flush"}, {"flush", "archive"}]
    assert late(bounds["flush"]) == set()
    now_s = int(time.time())
    wiring.board.succeeded("flush", now_s)
    wiring.board.succeeded("archive", now_s - bounds["archive"] - 5)
    assert late(1e6) == {"archive"}
    assert wiring.board.successes() == {"flush": now_s, "archive": now_s - bounds["archive"] - 5}


def test_what_keeps_a_station_from_its_work_degrades_the_health_and_a_warning_does_not(rig: Rig) -> None:
    rig.write({"okx": ["BTC-USDT"]})
    wiring = rig.wiring()
    publish(wiring, state(OKX))
    wiring.board.trouble("flush", {"level": "warning", "detail": "disk: 83 %", "since_us": 1}, 60)
    assert Client(rig.wiring()).get("/health").json()["status"] == "healthy"
    wiring.board.trouble("archive", {"level": "degraded", "detail": "the disk is full", "since_us": 1}, 60)
    body = Client(rig.wiring()).get("/health").json()
    assert (body["status"], body["degraded_reason"]) == ("degraded", "archive: the disk is full")


def test_a_connection_that_failed_is_not_counted_as_up_and_says_why(rig: Rig) -> None:
    rig.write({"bybit": ["BTCUSDT"]})
    wiring = rig.wiring()
    publish(wiring, state(BYBIT, connection="failed", why="the venue answered the handshake with HTTP 403"))
    answer = Client(rig.wiring()).get("/health")
    assert (answer.status_code, answer.json()["connections"]) == (503, {"up": 0, "total": 1})
    assert answer.json()["streams"][0]["why"] == "the venue answered the handshake with HTTP 403"


def test_without_redis_health_and_readiness_say_so_and_metrics_still_answer(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    rig = Rig(tmp_path, own_redis.url)
    rig.write({"bybit": ["BTCUSDT"]}, redis={"timeout_secs": 0.3})
    publish(rig.wiring(), state(BYBIT))
    client = Client(rig.wiring())
    assert client.get("/health").json()["status"] == "healthy"
    _ = rig.wiring().ledger
    for away, back in ((own_redis.freeze, own_redis.thaw), (own_redis.kill, own_redis.start)):
        away()
        answer = client.get("/health")
        body = answer.json()
        assert (answer.status_code, body["status"]) == (503, "unhealthy")
        assert (body["connections"], body["messages_dropped"]) == ({"up": 0, "total": 1}, 0)
        assert body["degraded_reason"].startswith("redis: ")
        assert client.get("/ready").status_code == 503
        found = metrics(client)
        assert found["collector_redis_up", ()] == 0
        assert found["collector_segments", (("state", "open"),)] == 0
        assert not any(name == "collector_websocket_connected" for name, _ in found)
        back()
        until(lambda: metrics(client)["collector_redis_up", ()] == 1, "Redis is seen again")
    assert abs(metrics(client)["collector_start_timestamp_seconds", ()] - time.time()) < 60


def test_a_ledger_that_cannot_be_read_is_told_and_takes_nothing_else_with_it(rig: Rig) -> None:
    rig.write({"okx": ["BTC-USDT"]})
    wiring = rig.wiring()
    wiring.ledger.path.write_bytes(b"no database" * 100)
    found = metrics(Client(wiring))
    assert (found["collector_ledger_up", ()], found["collector_redis_up", ()]) == (0, 1)
    assert not any(name in ("collector_segments", "collector_gaps", "collector_local_bytes") for name, _ in found)
    assert found["collector_websocket_connected", (("exchange", "okx"), ("symbol", "BTC-USDT"))] == 0


def test_what_a_scrape_of_nothing_says_is_well_formed(rig: Rig) -> None:
    rig.write({"okx": ["BTC-USDT"]})
    checked = prometheus.promtool("check", "metrics", stdin=Client(rig.wiring()).get("/metrics").text)
    # Named by the customer's documents.
    assert (checked.stdout + checked.stderr).strip() == (
        "collector_latency_exchange_to_collector_ms metric names should not contain abbreviated units"
    )


def test_a_commit_that_is_rolled_back_counts_nothing_and_its_next_try_everything_once(rig: Rig) -> None:
    rig.write({"binance": ["btcusdt"]})
    wiring = rig.wiring()
    counts = reporter(wiring)
    stream = "binance-0-orderbook.trade"
    wiring.buffer.push(stream, BatchCodec().encode(made.batch(1, [made.event(1), made.event(2)])))
    periodic.flush(wiring, NEVER)  # makes the segment
    wiring.buffer.push(
        stream, BatchCodec().encode(made.batch(2, [made.event(3), made.event(4, "2"), made.undecoded(1)]))
    )
    (path,) = segment_files(wiring)[:1]
    with closing(sqlite3.connect(path)) as segment, segment:
        segment.execute("CREATE TRIGGER refuse BEFORE INSERT ON quarantine BEGIN SELECT RAISE(ABORT, 'not now'); END")
    assert periodic.flush(wiring, NEVER)["failed"] == {stream: "constraint"}
    counts.report()
    found = scraped(wiring)
    feed, undecoded = ("binance", "btcusdt", "trade"), ("binance", "?", "?")
    assert by_feed(found, "messages_stored_total") == {feed: 2}
    assert by_feed(found, "messages_quarantined_total") == {}
    assert total(found, "db_insert_errors_total", error_type="constraint") == 1
    with closing(sqlite3.connect(path)) as segment, segment:
        segment.execute("DROP TRIGGER refuse")
    assert periodic.flush(wiring, NEVER)["failed"] == {}
    counts.report()
    found = scraped(wiring)
    assert by_feed(found, "messages_stored_total") == {feed: 3}
    assert by_feed(found, "messages_duplicate_total") == {feed: 1}
    assert by_feed(found, "messages_quarantined_total") == {undecoded: 1}
    assert total(found, "db_snapshots_written_total") == 3


def test_uptime_counts_from_the_start_of_the_process(rig: Rig) -> None:
    rig.write({"bybit": ["BTCUSDT"]})
    assert health(rig.wiring(), 123.9)[0]["uptime_seconds"] == 123


@pytest.mark.parametrize("path", ["/healthz", "/metrics/x", "/ready/"])
def test_nothing_else_is_served(path: str, rig: Rig) -> None:
    assert Client(rig.wiring()).get(path).status_code in (307, 404)


@pytest.mark.parametrize(
    ("path", "asked"), [("/health", "health"), ("/ready", "ready"), ("/metrics", "generate_latest")]
)
def test_however_many_ask_while_redis_hangs_one_question_is_asked_and_pages_go_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, path: str, asked: str
) -> None:
    go, questions = threading.Event(), list[object]()

    def hangs(*of: object) -> Any:
        questions.append(of)
        assert go.wait(60)
        return b"told" if path == "/metrics" else ({"told": 1}, 200)

    monkeypatch.setattr(f"app.web.application.{asked}", hangs)
    monkeypatch.setattr("app.web.application.OPEN_S", 60.0)
    transport = httpx.ASGITransport(application(rig.wiring()))

    async def ask() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as client:
            many = [asyncio.create_task(client.get(path)) for _ in range(100)]
            leaves = asyncio.create_task(client.get(path))
            while not questions:
                await asyncio.sleep(0.01)
            leaves.cancel()
            assert (await client.get("/api/overview")).status_code == 200
            go.set()
            assert {answer.status_code for answer in await asyncio.gather(*many)} == {200}
            assert len(questions) == 1
            await client.get(path)
            assert len(questions) == (2 if path == "/metrics" else 1), "a scrape is never told what was"

    asyncio.run(ask())
