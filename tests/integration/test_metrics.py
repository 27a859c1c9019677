"""Metrics of a running installation: processes count, Redis adds up, `web` tells, a real Prometheus reads.

One installation lives once and is looked at as it goes: while it records, while Redis stands still and events are
refused, and after everything was stopped and flushed by hand.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.launch.redis_server import free_port
from app.metrics import DECLARED, GAUGES, STATIONS
from app.pipeline.audit import audit
from tests.support import prometheus, redis_process
from tests.support.counting import Samples, by_feed, samples, total, unaccounted
from tests.support.exchanges import ExchangeProcess
from tests.support.path import until
from tests.support.rig import CHECKOUT, MARKETS, Rig

VENUES = ("binance", "okx")
FEEDS = {(venue, symbol, feed) for venue in VENUES for symbol in MARKETS[venue] for feed in ("orderbook", "trade")}

pytestmark = pytest.mark.exhaustive


@dataclass
class Story:
    """What was seen, in the order in which it happened."""

    rig: Rig
    running_text: str
    running: Samples
    #: Of Prometheus: expression -> value by series.
    seen: dict[str, dict[prometheus.Labels, float]]
    frozen: Samples
    frozen_s: float
    refused: dict[str, Any]
    ended: Samples


#: Asked of Prometheus while everything runs. Each must come to something.
QUERIES = (
    "up",
    "sum(rate(collector_messages_received_total[5s])) > 0",
    "sum(rate(collector_messages_stored_total[5s])) > 0",
    "histogram_quantile(0.99, sum by (le) (rate(collector_latency_exchange_to_collector_ms_bucket[5s]))) >= 0",
    "min(collector_websocket_connected) == 1",
    "time() - min(collector_last_message_timestamp_seconds) < 60",
    'sum(collector_feed_state{state="live"}) == 8',
)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("metrics")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    processes: list[subprocess.Popen[bytes]] = []
    exchange = ExchangeProcess(root / "exchanges", rate=40)
    try:
        with redis_process.running(root / "redis") as redis:
            rig = Rig(root, redis.url)
            rig.write(
                {venue: MARKETS[venue] for venue in VENUES},
                exchange.venues,
                # Small enough that the memory of a stream is full soon after Redis and the spool take nothing.
                buffer={"stream_max_bytes": 64 * 1024, "process_max_bytes": 256 * 1024, "batch_max_events": 20},
                spool={"dir": str(root / "spool"), "max_bytes": 8 * 1024},
                archive={"dir": str(root / "archive")},
                storage={"local_path": str(root / "objects"), "segments_path": str(root / "segments")},
            )
            worker = [
                sys.executable, "-m", "celery", "-A", "app", "worker", "-B", "-s", str(root / "schedule"), "-n", "one@%h",
            ]  # fmt: skip
            for name, command in (
                ("web", [sys.executable, "-m", "app", "web", "--port", str(port)]), ("worker", worker),
            ):  # fmt: skip
                with (root / f"{name}.log").open("wb") as log:
                    processes.append(
                        subprocess.Popen(
                            command,
                            cwd=CHECKOUT,
                            env=rig.environ,
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                            start_new_session=True,
                        )
                    )
            with prometheus.running(root / "prometheus", {"collector": f"127.0.0.1:{port}"}) as server:
                yield told(rig, redis, exchange, processes, server, url)
    finally:
        exchange.stop()
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # beat is a process beside its worker
            process.wait()


def told(
    rig: Rig,
    redis: redis_process.RedisProcess,
    exchange: ExchangeProcess,
    processes: list[subprocess.Popen[bytes]],
    server: prometheus.Prometheus,
    url: str,
) -> Story:
    def get(path: str) -> httpx.Response:
        return httpx.get(url + path, timeout=30, trust_env=False)

    def metrics() -> Samples:
        return samples(get("/metrics").text)

    def asked(check: Callable[[], bool], what: str) -> None:
        def ask() -> bool:
            try:
                return check()
            except httpx.HTTPError:  # web is starting
                return False

        until(ask, what, 120)

    asked(lambda: get("/health").json()["connections"] == {"up": 2, "total": 2}, "every connection is up")
    seen = {query: server.until(query) for query in QUERIES}
    asked(lambda: by_feed(metrics(), "messages_stored_total").keys() == FEEDS, "each feed has events in a segment")
    text = get("/metrics").text

    redis.freeze()
    try:
        time.sleep(2)  # what a stream reads meanwhile fits neither into its spool nor into its memory
        begun_s = time.monotonic()
        frozen = metrics()
        frozen_s = time.monotonic() - begun_s
    finally:
        redis.thaw()
    asked(lambda: total(metrics(), "messages_dropped_total") > 0, "refused events are counted")
    asked(lambda: "degraded_reason" in get("/health").json(), "the streams have said so, too")
    refused = get("/health").json()
    asked(lambda: total(metrics(), "spool_bytes") == 0, "the spool is empty again")

    exchange.halt()
    processes[1].send_signal(signal.SIGTERM)
    assert processes[1].wait(30) == 0
    archived = rig.collector("archive", "--final")  # and a flush before
    assert archived.returncode == 0, archived.stdout + archived.stderr
    until(lambda: total(metrics(), "objects", state="verified") == len(FEEDS), "the ledger was read anew", 15)
    return Story(
        rig, text, samples(text), seen, frozen, frozen_s, refused, metrics()
    )  # fmt: skip


def test_a_real_prometheus_reads_what_all_processes_do(story: Story) -> None:
    assert list(story.seen["up"].values()) == [1]
    assert all(story.seen.values())


def test_promtool_finds_nothing_wrong_but_the_unit_in_a_name_of_the_customer(story: Story) -> None:
    checked = prometheus.promtool("check", "metrics", stdin=story.running_text)
    assert (checked.stdout + checked.stderr).strip() == (
        "collector_latency_exchange_to_collector_ms metric names should not contain abbreviated units"
    )


def test_every_metric_is_told(story: Story) -> None:
    shown = {line.split()[2] for line in story.running_text.splitlines() if line.startswith("# TYPE ")}
    assert shown == {f"collector_{name}" for name in (*DECLARED, *GAUGES)}


def test_each_feed_shows_what_came_and_how_late(story: Story) -> None:
    found = story.running
    for name in ("messages_received_total", "messages_stored_total"):
        assert by_feed(found, name).keys() == FEEDS
    untimed = {(venue, symbol, feed) for venue, symbol, feed in FEEDS if (venue, feed) == ("binance", "orderbook")}
    assert by_feed(found, "latency_exchange_to_collector_ms_count").keys() == FEEDS - untimed
    assert by_feed(found, "feed_age_seconds").keys() == FEEDS
    done = {name: total(found, "station_last_success_timestamp_seconds", station=name) for name in STATIONS}
    assert {name for name in ("supervise", "flush", "archive") if abs(time.time() - done[name]) < 300} == {
        "supervise", "flush", "archive",
    }  # fmt: skip


def test_a_redis_that_stands_still_is_told_within_a_second(story: Story) -> None:
    assert story.frozen["collector_redis_up", ()] == 0
    assert story.frozen["collector_ledger_up", ()] == 1
    assert ("collector_messages_dropped_total", ()) not in story.frozen
    assert story.frozen_s < 1.0 + 1.0  # one for a busy machine


def test_what_was_refused_degrades_the_health(story: Story) -> None:
    assert (story.refused["status"], story.refused["degraded_reason"]) == ("degraded", "backpressure")
    assert story.refused["messages_dropped"] > 0


def test_the_books_balance_from_metrics_alone_and_agree_with_the_audit(story: Story) -> None:
    ended = story.ended
    assert unaccounted(ended) == {}
    waiting = ("channel_queue_depth", "memory_queue_events", "spool_events")
    assert {name: total(ended, name) for name in waiting} == dict.fromkeys(waiting, 0)
    dropped = total(ended, "messages_dropped_total")
    assert dropped == total(ended, "messages_lost_total", cause="queue_full") > 0
    found = audit(story.rig.wiring())
    assert found.differences == []
    for name, column in (
        ("messages_received_total", "received"), ("messages_stored_total", "archived"),
        ("messages_duplicate_total", "duplicates"), ("messages_lost_total", "lost"),
        ("messages_replayed_total", "replays"), ("messages_quarantined_total", "quarantined"),
    ):  # fmt: skip
        counted = {(b.exchange, b.symbol, b.feed): getattr(b, column) for b in found.balances if getattr(b, column)}
        assert by_feed(ended, name) == counted, name
    assert (
        total(ended, "db_snapshots_written_total")
        == total(ended, "snapshots_archived_total")
        == sum(balance.archived for balance in found.balances)
    )
    assert total(ended, "unarchived_rows") == 0
