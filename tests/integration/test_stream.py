"""Streams on threads of the test process against exchanges that really listen, with a real Redis: what arrives is kept."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from app.codec import BatchCodec
from app.model import Batch
from app.pipeline import periodic
from app.pipeline.supervise import collect
from app.wiring import Wiring
from tests.support import batches as made
from tests.support.counting import by_feed, reporter, scraped, unaccounted
from tests.support.counting import total as counted
from tests.support.exchanges import ExchangeProcess
from tests.support.path import (
    NEVER,
    Collecting,
    Scripted,
    archived,
    bybit_trade,
    compare,
    figures,
    finish,
    records,
    until,
)
from tests.support.redis_process import RedisProcess
from tests.support.rig import MARKETS, Rig

StartExchanges = Callable[..., ExchangeProcess]
UNKNOWN = {
    "binance": "nosuchusdt",
    "coinbase": "NOSUCH-USD",
    "upbit": "KRW-NOSUCH",
    "okx": "NOSUCH-USDT",
    "bybit": "NOSUCHUSDT",
}
BYBIT = "bybit-0-orderbook.trade"


def batches(wiring: Wiring, stream: str) -> list[Batch]:
    """What waits in the list of a stream."""
    codec = BatchCodec()
    return [codec.decode(element) for element in wiring.buffer.head(stream, 1_000_000, 1 << 40)]


def sent_numbers(entries: list[dict[str, Any]]) -> Counter[tuple[str, str, str]]:
    return Counter((entry["venue"], entry["symbol"], entry["feed"]) for entry in entries)


def test_both_feeds_of_every_exchange_arrive_in_the_lists_and_a_stop_ends_the_epoch_on_record(
    rig: Rig, exchange_server: StartExchanges
) -> None:
    server = exchange_server(rate=20)
    rig.write(MARKETS, server.venues)
    wiring = rig.wiring()
    with Collecting(wiring) as collecting:
        until(collecting.live, "every feed is live")
        assert wiring.board.leased(list(wiring.streams)) == set(wiring.streams)
        server.halt()
        assert collecting.finish() == dict.fromkeys(wiring.streams, "stop")
    assert wiring.board.leased(list(wiring.streams)) == set()

    wanted = sent_numbers(server.sent())
    assert wanted.keys() == {(name, s, f) for name in MARKETS for s in MARKETS[name] for f in ("orderbook", "trade")}
    for name, stream in wiring.streams.items():
        found = batches(wiring, name)
        (epoch,) = {batch.epoch for batch in found}
        assert [batch.number for batch in found] == list(range(1, len(found) + 1))
        numbers: dict[tuple[str, str], list[int]] = {}
        for batch in found:
            for event in batch.events:
                numbers.setdefault((event.symbol, event.feed), []).append(event.number)
        assert {key: (given[0], len(given), given[-1]) for key, given in numbers.items()} == {
            key[1:]: (1, count, count) for key, count in wanted.items() if key[0] == stream.exchange
        }
        assert [batch.end is None for batch in found] == [True] * (len(found) - 1) + [False]
        end = found[-1].end
        assert end is not None
        assert end.reason == "stop"
        assert {(r.symbol, r.feed): r.last for r in end.last_numbers} == {k: given[-1] for k, given in numbers.items()}
        assert epoch == collecting.runners[name].state(0.0)["epoch"]


def test_a_stop_while_redis_is_frozen_leaves_everything_in_the_spool_and_the_next_start_delivers_it(
    own_redis: RedisProcess, exchange_server: StartExchanges, tmp_path: Any
) -> None:
    rig = Rig(tmp_path, own_redis.url)
    server = exchange_server(rate=20)
    rig.write({"okx": MARKETS["okx"], "upbit": MARKETS["upbit"]}, server.venues, redis={"timeout_secs": 0.3})
    wiring = rig.wiring()
    collecting = Collecting(wiring)
    until(collecting.live, "every feed is live")
    own_redis.freeze()
    collecting.more(40)
    server.halt()
    collecting.stop.set()
    reasons = collecting.join()
    assert reasons == dict.fromkeys(wiring.streams, "stop")
    assert {name for name in wiring.streams if wiring.spool(name)} == set(wiring.streams)

    own_redis.thaw()
    waiting = {depth.stream: depth.events for depth in wiring.buffer.depths()}
    sent = Counter(entry["venue"] for entry in server.sent())
    assert sum(waiting.values()) < sent.total()
    for name in wiring.streams:
        wiring.redis.delete(f"{rig.prefix}:lease:stream:{name}")  # could not be given back; it would run out
    again = Collecting(rig.wiring())
    until(lambda: len(again.runners) == 2, "both streams started again")
    assert set(again.finish().values()) == {"stop"}
    assert not any(wiring.spool(name) for name in wiring.streams)
    finish(wiring)
    compare(wiring, server.sent())
    assert figures(wiring, server.sent_file).faults == []


def test_a_stop_in_the_middle_of_the_data_keeps_what_was_on_its_way(rig: Rig, exchange_server: StartExchanges) -> None:
    server = exchange_server(rate=200)
    rig.write({"okx": MARKETS["okx"], "bybit": MARKETS["bybit"]}, server.venues)
    wiring = rig.wiring()
    with Collecting(wiring) as collecting:
        until(collecting.live, "every feed is live")
        collecting.more(500)
        assert set(collecting.finish().values()) == {"stop"}
    server.halt()
    finish(wiring)
    texts = {text for rows in archived(wiring).values() for _, text in rows}
    compare(wiring, [entry for entry in server.sent() if not entry.get("maybe") or entry["data"] in texts])


def test_a_spool_that_no_stream_owns_any_more_is_delivered_by_the_next_start_of_any(rig: Rig) -> None:
    rig.write({"bybit": ["BTCUSDT"]})
    wiring = rig.wiring()
    spool = wiring.spool("binance-0-trade")
    assert spool.lock()
    left = made.batch(1, [made.event(1), made.event(2)], stream="binance-0-trade")
    spool.append(BatchCodec().encode(left))
    spool.close()
    assert collect(wiring, "binance-0-trade", threading.Event()) == "not planned"
    assert not wiring.spool("binance-0-trade")
    assert batches(wiring, "binance-0-trade") == [left]


@pytest.mark.row("X4")
@pytest.mark.parametrize("speaks", [True, False], ids=["the venue refuses it", "the venue stays silent"])
def test_an_unknown_symbol_is_rejected_with_the_reason_and_the_others_are_live(
    speaks: bool, rig: Rig, exchange_server: StartExchanges
) -> None:
    server = exchange_server(rate=20)
    names = ("coinbase", "okx", "bybit") if speaks else ("binance", "upbit")
    # Where the venue speaks, its list is out of reach, so that the words can only be its own.
    venues = {name: {**server.venues[name], **({"rest_url": "http://127.0.0.1:9"} if speaks else {})} for name in names}
    # Bybit names one topic of those it refuses together: the other one is asked for again when it has been silent.
    rig.write(
        {name: [MARKETS[name][0], UNKNOWN[name]] for name in names}, venues, websocket={"message_timeout_secs": 2}
    )
    wiring = rig.wiring()
    with Collecting(wiring) as collecting:
        good = [(name, MARKETS[name][0], feed) for name in names for feed in ("orderbook", "trade")]
        bad = [(name, UNKNOWN[name], feed) for name in names for feed in ("orderbook", "trade")]
        wanted = dict.fromkeys(good, "live") | dict.fromkeys(bad, "rejected")
        until(lambda: {key: state for key, (state, _) in collecting.feeds().items()} == wanted, "every state is known")
        feeds = collecting.feeds()
        assert {runner.progress.opened_count for runner in collecting.runners.values()} == {1}
    for name, symbol, feed in bad:
        why = feeds[name, symbol, feed][1]
        assert (symbol if speaks else "not in the venue's list of open symbols") in why


def test_a_stream_that_somebody_else_holds_is_left_to_them(rig: Rig) -> None:
    rig.write({"bybit": ["BTCUSDT"]})
    wiring = rig.wiring()
    other = rig.wiring().lease(f"stream:{BYBIT}", 30, token="another worker")
    assert other.acquire()
    assert collect(wiring, BYBIT, threading.Event()) == "leased elsewhere"
    assert other.holder() == "another worker"
    assert not wiring.spool(BYBIT)
    assert collect(wiring, "bybit-7-orderbook.trade", threading.Event()) == "not planned"


@pytest.mark.row("C3")
def test_who_loses_the_lease_closes_the_socket_and_delivers_what_it_has(
    rig: Rig, exchange_server: StartExchanges
) -> None:
    server = exchange_server(rate=20)
    rig.write({"bybit": MARKETS["bybit"]}, server.venues, buffer={"lease_secs": 3})
    wiring = rig.wiring()
    collecting = Collecting(wiring)
    until(collecting.live, "every feed is live")
    wiring.redis.set(f"{rig.prefix}:lease:stream:{BYBIT}", "another worker", px=60_000)
    assert collecting.join() == {BYBIT: "lease_lost"}
    assert wiring.lease(f"stream:{BYBIT}", 3).holder() == "another worker"
    status = until(lambda: (s := server.status())["connections"] == 0 and s, "its connection is gone")
    server.halt()
    finish(wiring)

    assert [row["reason"] for row in records(wiring, "epochs")] == ["lease_lost"]
    received = sum(row["stored"] for row in records(wiring, "ranges"))
    assert received == collecting.runners[BYBIT].progress.events == sum(status["sent"]["bybit"].values())
    assert compare(wiring, server.sent()) == {}


@pytest.mark.exhaustive
@pytest.mark.row("R3")
@pytest.mark.timeout(110)
def test_twenty_seconds_without_redis_at_a_thousand_frames_a_second_lose_nothing(
    own_redis: RedisProcess, exchange_server: StartExchanges, tmp_path: Any
) -> None:
    rig = Rig(tmp_path, own_redis.url)
    server = exchange_server(rate=70)
    rig.write(
        {"okx": ["BTC-USDT", "ETH-USDT", *(f"TEST{n:04d}-USDT" for n in range(1, 7))]},
        server.venues,
        buffer={"stream_max_bytes": 1024 * 1024, "process_max_bytes": 2 * 1024 * 1024},
    )
    wiring = rig.wiring()
    collecting = Collecting(wiring)
    until(collecting.live, "every feed is live")
    own_redis.freeze()
    before = collecting.frames()
    seen = [before]
    frozen = threading.Event()
    peak = 0
    for _ in range(20):
        frozen.wait(1.0)  # the promise is a time: that is what is waited for
        seen.append(collecting.frames())
        peak = max(peak, wiring.allowance.held_bytes)
    own_redis.thaw()
    server.halt()
    assert set(collecting.finish(60).values()) == {"stop"}
    finish(wiring)

    assert min(later - earlier for earlier, later in pairwise(seen)) > 0
    assert seen[-1] - before > 10_000
    assert peak <= 2 * 1024 * 1024
    account = figures(wiring, server.sent_file).figures
    assert account["received"] == account["stored"] + account["duplicates"] + account["lost"]
    assert_lost_are_declared(wiring, server.sent())


def assert_lost_are_declared(wiring: Wiring, sent: list[dict[str, Any]]) -> None:
    """Every sent event of the one epoch is archived, or its number is in a declared loss: exactly one of both."""
    rows = archived(wiring)
    lost: dict[tuple[str, str, str], set[int]] = {}
    for loss in records(wiring, "losses"):
        numbers = lost.setdefault((loss["exchange"], loss["symbol"], loss["feed"]), set())
        numbers.update(range(loss["first"], loss["last"] + 1))
    expected: dict[tuple[str, str, str], list[str]] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    for entry in sent:
        key = entry["venue"], entry["symbol"], entry["feed"]
        counts[key] += 1
        if counts[key] not in lost.get(key, ()):
            expected.setdefault(key, []).append(entry["data"])
    assert {key: [data for _, data in found] for key, found in rows.items()} == expected


@pytest.mark.row("X12")
def test_a_market_that_floods_loses_only_its_own_events_and_says_which(rig: Rig) -> None:
    rounds, burst, padding = 150, 100, 400
    limit = 256 * 1024

    def script(connection: ServerConnection, number: int) -> None:
        for n in range(rounds):
            for m in range(burst):
                connection.send(bybit_trade("BTCUSDT", 1 + n * burst + m, padding))
            connection.send(bybit_trade("ETHUSDT", 1_000_000 + n))

    with Scripted(script) as venue:
        rig.write(
            {"bybit": ["BTCUSDT", "ETHUSDT"]},
            {"bybit": venue.venue},
            collector={"feeds": ["trades"]},
            buffer={"stream_max_bytes": limit, "process_max_bytes": limit, "list_max_bytes": 16 * 1024},
            spool={"max_bytes": 16 * 1024},
        )
        wiring = rig.wiring()
        counts = reporter(wiring)
        total = rounds * (burst + 1)
        collecting = Collecting(wiring)
        peak = 0

        def all_read() -> bool:
            nonlocal peak
            peak = max(peak, wiring.allowance.held_bytes)
            return collecting.frames() == total

        until(all_read, "everything is read although nothing is taken away", 30)
        (runner,) = collecting.runners.values()
        refused = runner.state(0.0)["refused"]
        assert refused > total / 2
        assert limit / 2 < peak <= 2 * limit

        def delivered() -> bool:
            periodic.flush(wiring, NEVER)
            return runner.state(0.0)["queued"] == 0 and not wiring.spool(runner.stream.name)

        until(delivered, "all that was kept is on its way", 40)
        assert set(collecting.finish().values()) == {"stop"}
    finish(wiring)

    rows = archived(wiring)
    assert [identity for identity, _ in rows["bybit", "ETHUSDT", "trade"]] == [
        str(1_000_000 + n) for n in range(rounds)
    ]
    losses = records(wiring, "losses")
    assert {(loss["symbol"], loss["feed"], loss["cause"]) for loss in losses} == {("BTCUSDT", "trade", "queue_full")}
    assert all(loss["count"] == loss["last"] - loss["first"] + 1 for loss in losses)
    lost = [number for loss in losses for number in range(loss["first"], loss["last"] + 1)]
    assert len(lost) == len(set(lost)) == refused
    # Its trades count from 1 as its numbers do: what is archived and what is declared lost are all of them.
    kept = [int(identity) for identity, _ in rows["bybit", "BTCUSDT", "trade"]]
    assert sorted(kept + lost) == list(range(1, rounds * burst + 1))

    counts.report()
    told = scraped(wiring)
    assert unaccounted(told) == {}
    assert by_feed(told, "messages_received_total") == {
        ("bybit", "BTCUSDT", "trade"): rounds * burst, ("bybit", "ETHUSDT", "trade"): rounds,
    }  # fmt: skip
    assert counted(told, "messages_dropped_total") == refused
    assert by_feed(told, "messages_lost_total") == {("bybit", "BTCUSDT", "trade"): refused}
    assert counted(told, "spooled_batches_total", exchange="bybit") > 0
    assert [counted(told, name) for name in ("spool_events", "memory_queue_events", "channel_queue_depth")] == [0, 0, 0]


@pytest.mark.row("X5")
def test_frames_that_cannot_be_read_are_kept_with_the_reason_and_the_stream_goes_on(rig: Rig) -> None:
    whole = bybit_trade("BTCUSDT", 7)
    oversized = bybit_trade("BTCUSDT", 8, padding=8000).encode()
    bad: dict[bytes, str] = {
        b"\x00\x01 garbage": "not_json",
        whole[:-20].encode(): "not_json",
        b'{"topic":"publicTrade.BTCUSDT","data":"\xff\xfe"}': "not_utf8",
        b"[" * 3000: "unexpected_shape",
        b'{"data":' * 400: "not_json",
        bybit_trade("XRPUSDT", 1).encode(): "unexpected_symbol",
        b'{"topic":"publicTrade.BTCUSDT","ts":1e999,"data":[]}': "unexpected_shape",
        b"": "not_json",
    }

    def script(connection: ServerConnection, number: int) -> None:
        connection.send(bybit_trade("BTCUSDT", 100 * number + 1))
        if number == 1:
            for frame in bad:
                connection.send(frame, text=True)
            connection.send(bybit_trade("BTCUSDT", 102))
            connection.send(oversized, text=True)

    with Scripted(script) as venue:
        rig.write(
            {"bybit": ["BTCUSDT"]},
            {"bybit": venue.venue},
            collector={"feeds": ["trades"]},
            websocket={"max_frame_bytes": 4096, "initial_retry_delay_secs": 0.1},
        )
        wiring = rig.wiring()
        with Collecting(wiring) as collecting:
            until(
                lambda: collecting.runners and next(iter(collecting.runners.values())).progress.events == 3, "3 trades"
            )
    finish(wiring)

    assert [identity for identity, _ in archived(wiring)["bybit", "BTCUSDT", "trade"]] == ["101", "102", "201"]
    quarantined = sorted(records(wiring, "quarantine"), key=lambda row: row["number"])
    assert [bytes(row["frame"]) for row in quarantined] == [*bad, oversized[: len(quarantined[-1]["frame"])]]
    assert len(quarantined[-1]["frame"]) > 4096
    for row, (frame, reason) in zip(quarantined, bad.items(), strict=False):
        assert row["reason"].startswith(reason), (frame, row["reason"])
    assert quarantined[-1]["reason"].startswith(f"oversized: {len(oversized)} bytes")
    assert [(row["number"], row["feed"]) for row in quarantined] == [(n, "?") for n in range(1, len(bad) + 2)]
    reasons = [row["reason"] for row in sorted(records(wiring, "epochs"), key=lambda row: row["opened_us"])]
    assert reasons == ["oversized_frame", "stop"]
    received = sum(last for row in records(wiring, "epochs") for _, _, last in json.loads(row["last_numbers"]))
    assert received == 3 + len(quarantined)
