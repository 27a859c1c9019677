"""A spool that comes back hours late: what another connection delivered in time is a duplicate, wherever it stands now.

That each of its events is stored once, to the byte: tests/contract/test_identity.py.
"""

from __future__ import annotations

import threading

import msgspec
import pytest

from app.codec import BatchCodec
from app.model import Batch, Event, runs
from app.pipeline import periodic
from app.pipeline.flush import Flush, FlushReport
from app.pipeline.late import LateTwins
from app.wiring import Wiring
from tests.support.rig import Rig

NOON_US = 1_790_000_000_000_000 // 3_600_000_000 * 3_600_000_000
HOUR_US = 3_600_000_000


def trade(number: int, identity: str, received_us: int) -> Event:
    return Event("btcusdt", "trade", number, identity, received_us, None, f'{{"t":{identity}}}')


def push(wiring: Wiring, epoch: str, opened_us: int, *events: Event) -> None:
    ranges = tuple(runs((e.symbol, e.feed, e.number) for e in events))
    batch = Batch("binance-0", "binance", epoch * 16, 1, opened_us, ranges, events)
    wiring.buffer.push("binance-0", BatchCodec().encode(batch))


def flush(wiring: Wiring, now_us: int) -> FlushReport:
    made = Flush(
        wiring.buffer, wiring.ledger, wiring.settings.storage.segments_path, segment_secs=3600, wall_us=lambda: now_us,
        monotonic_s=lambda: 0.0,
        late=LateTwins(wiring.ledger, wiring.settings.storage.segments_path, lambda: wiring.store),
    )  # fmt: skip
    return made.run()


def test_events_in_time_ask_no_object(rig: Rig) -> None:
    wiring = rig.wiring()
    push(wiring, "aa", NOON_US, trade(1, "1", NOON_US + 1))
    flush(wiring, NOON_US + 10)

    def store() -> None:
        raise AssertionError("the store was asked")

    finder = LateTwins(wiring.ledger, wiring.settings.storage.segments_path, store)  # type: ignore[arg-type]
    events = (trade(2, "2", NOON_US + 20),)
    batch = Batch("binance-0", "binance", "bb" * 16, 1, NOON_US, tuple(runs([("btcusdt", "trade", 2)])), events)
    assert finder.find([batch], NOON_US + 10) is None


@pytest.mark.parametrize("archived", [True, False], ids=["archived", "kept"])
def test_a_new_connection_that_repeats_the_last_trade_of_hours_ago_counts_it_as_a_duplicate(
    rig: Rig, archived: bool
) -> None:
    wiring = rig.wiring()

    def last_trade(received_us: int) -> Event:
        return Event("btcusdt", "trade", 1, "777", received_us, NOON_US + 1, '{"t":777}')

    push(wiring, "aa", NOON_US, last_trade(NOON_US + 2))
    flush(wiring, NOON_US + 10)
    for hour in (1, 2, 3):
        flush(wiring, NOON_US + hour * HOUR_US)
    if archived:
        periodic.archive(wiring, threading.Event())
    now_us = NOON_US + 3 * HOUR_US + 60_000_000
    push(wiring, "bb", now_us, last_trade(now_us + 5))
    counts = flush(wiring, now_us + 10).counts
    assert (counts.stored, counts.duplicates) == (0, 1)


def test_what_one_stream_brings_stops_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = rig.wiring()
    for stream, epoch in (("binance-0", "aa"), ("binance-1", "bb")):
        events = (trade(1, f"{stream}-1", NOON_US + 1),)
        batch = Batch(stream, "binance", epoch * 16, 1, NOON_US, tuple(runs([("btcusdt", "trade", 1)])), events)
        wiring.buffer.push(stream, BatchCodec().encode(batch))
    find = LateTwins.find

    def fails_for_one(self: LateTwins, batches: list[Batch], opened_us: int) -> object:
        if batches[0].stream == "binance-0":
            raise ValueError("a damaged object")
        return find(self, batches, opened_us)

    monkeypatch.setattr(LateTwins, "find", fails_for_one)
    report = flush(wiring, NOON_US + 10)
    assert report.failed == {"binance-0": "ValueError"}
    assert report.counts.stored == 1
    assert [depth.stream for depth in wiring.buffer.depths()] == ["binance-0"]
    monkeypatch.undo()
    assert flush(wiring, NOON_US + 20).counts.stored == 1


def test_a_batch_of_a_newer_format_stays_in_redis(rig: Rig) -> None:
    wiring = rig.wiring()
    newer = bytearray(BatchCodec().encode(Batch("binance-0", "binance", "aa" * 16, 1, NOON_US)))
    newer[1] = 2
    wiring.redis.rpush(f"{rig.prefix}:buffer:binance-0", bytes(newer))
    wiring.redis.hset(f"{rig.prefix}:buffer-bytes", "binance-0", len(newer))
    report = flush(wiring, NOON_US + 10)
    assert report.failed == {"binance-0": "NewerFormat"}
    assert wiring.redis.lrange(f"{rig.prefix}:buffer:binance-0", 0, -1) == [bytes(newer)]


@pytest.mark.parametrize("again", ["stream", "rest"])
def test_a_trade_that_was_fetched_hours_after_it_happened_is_known_when_it_comes_once_more(
    rig: Rig, again: str
) -> None:
    wiring = rig.wiring()
    push(wiring, "aa", NOON_US, trade(1, "1", NOON_US + 1))
    flush(wiring, NOON_US + 10)
    asked_us = NOON_US + 3 * HOUR_US
    flush(wiring, asked_us)
    past = msgspec.structs.replace(trade(1, "2", asked_us), exchange_us=NOON_US + 2)
    fetched = Batch(
        "binance-rest",
        "binance",
        "bb" * 16,
        1,
        asked_us,
        tuple(runs([(past.symbol, past.feed, past.number)])),
        (past,),
        kind="rest",
    )
    wiring.buffer.push("binance-rest", BatchCodec().encode(fetched))
    assert flush(wiring, asked_us + 1).counts.stored == 1
    for hour in (4, 5):
        flush(wiring, NOON_US + hour * HOUR_US)
    assert periodic.archive(wiring, threading.Event())["removed_segments"] == [1, 2]

    if again == "stream":
        push(wiring, "cc", NOON_US, trade(1, "2", NOON_US + 3))
    else:
        once_more = msgspec.structs.replace(fetched, epoch="dd" * 16, opened_us=NOON_US + 5 * HOUR_US)
        wiring.buffer.push("binance-rest", BatchCodec().encode(once_more))
    counts = flush(wiring, NOON_US + 5 * HOUR_US + 60_000_000).counts
    assert (counts.stored, counts.duplicates) == (0, 1)


def trade_of(identity: str, happened_us: int, received_us: int, number: int = 1) -> Event:
    return Event("btcusdt", "trade", number, identity, received_us, happened_us, f'{{"t":{identity}}}')


def test_a_feed_asked_for_again_in_a_quiet_market_stores_its_last_trade_once(rig: Rig) -> None:
    """The connection is old, and the segment not new: only the trade's own time tells where its twin is."""
    wiring = rig.wiring()
    flush(wiring, NOON_US)
    push(wiring, "aa", NOON_US, trade_of("777", NOON_US + HOUR_US - 2, NOON_US + HOUR_US - 1))
    flush(wiring, NOON_US + HOUR_US - 1)
    again_us = NOON_US + HOUR_US + HOUR_US // 2
    flush(wiring, NOON_US + HOUR_US)
    events = (trade_of("777", NOON_US + HOUR_US - 2, again_us, number=2),)
    ranges = tuple(runs((e.symbol, e.feed, e.number) for e in events))
    batch = Batch("binance-0", "binance", "aa" * 16, 2, NOON_US, ranges, events)
    wiring.buffer.push("binance-0", BatchCodec().encode(batch))
    counts = flush(wiring, again_us).counts
    assert (counts.stored, counts.duplicates) == (0, 1)


@pytest.mark.parametrize("archived", [True, False], ids=["archived", "kept"])
def test_trades_from_before_the_first_connection_that_each_connection_repeats_are_stored_once(
    rig: Rig, archived: bool
) -> None:
    """A venue begins a subscription with its last trades. Nobody was there when they happened: the first connection that
    repeated them has them, hours after they happened."""
    wiring = rig.wiring()

    def last_trades(received_us: int) -> list[Event]:
        return [trade_of(str(700 + n), NOON_US - 9 * HOUR_US + n, received_us, n) for n in (1, 2, 3)]

    push(wiring, "aa", NOON_US, *last_trades(NOON_US + 2))
    flush(wiring, NOON_US + 10)
    for hour in (1, 2, 3):
        flush(wiring, NOON_US + hour * HOUR_US)
    if archived:
        periodic.archive(wiring, threading.Event())
    now_us = NOON_US + 3 * HOUR_US + HOUR_US // 2
    push(wiring, "bb", now_us, *last_trades(now_us + 5))
    counts = flush(wiring, now_us + 10).counts
    assert (counts.stored, counts.duplicates) == (0, 3)


@pytest.mark.parametrize("fault", ["gone", "damaged", "cut"])
def test_an_object_that_is_lost_keeps_nothing_out_of_the_record(rig: Rig, fault: str) -> None:
    wiring = rig.wiring()
    push(wiring, "aa", NOON_US, trade_of("1", NOON_US, NOON_US))
    flush(wiring, NOON_US + 10)
    for hour in (1, 2, 3):
        flush(wiring, NOON_US + hour * HOUR_US)
    periodic.archive(wiring, threading.Event())
    (entry,) = wiring.ledger.objects()
    path = wiring.settings.storage.local_path / entry.key
    held = path.read_bytes()
    path.unlink()
    if fault != "gone":
        path.write_bytes(b"?" * len(held) if fault == "damaged" else held[: len(held) // 2] + b"?" * 40 + held[-8:])
    now_us = NOON_US + 3 * HOUR_US + HOUR_US // 2
    push(wiring, "bb", now_us, trade_of("1", NOON_US, now_us), trade_of("2", now_us, now_us, number=2))
    report = flush(wiring, now_us + 10)
    assert (report.failed, report.counts.stored) == ({}, 2)
    assert wiring.buffer.depths() == []
