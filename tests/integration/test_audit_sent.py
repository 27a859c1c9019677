"""What an exchange says it sent, against what is held: each way to differ is told apart."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.codec import BatchCodec
from app.model import ORDERBOOK, TRADE, Batch, EpochEnd, Event, Gap, Loss, Quarantined, Range, runs
from app.pipeline import periodic, reasons
from app.pipeline.audit import audit
from app.pipeline.sent import SentReport
from app.store.segment import SealedSegment
from app.wiring import Wiring
from tests.support.batches import EPOCH, OPENED_US, STREAM, batch, event
from tests.support.path import NEVER, finish
from tests.support.rig import Rig

FEED = "binance/btcusdt trade"


@pytest.fixture
def wiring(rig: Rig) -> Wiring:
    rig.write({"binance": ["btcusdt"]})
    return rig.wiring()


def line(number: int, connection: int = 1, feed: str = TRADE, **more: Any) -> dict[str, Any]:
    """The line of event `number`, as the exchange wrote it; `event` of the same number is how it is received."""
    one = event(number, feed=feed)
    return {
        "venue": "binance", "connection": connection, "symbol": "btcusdt", "feed": feed, "id": one.sequence_id,
        "data": one.data, **more,
    }  # fmt: skip


def opened(connection: int = 1) -> dict[str, Any]:
    return {"venue": "binance", "connection": connection, "opened": OPENED_US}


def closed(connection: int = 1, acknowledged: bool = True) -> dict[str, Any]:
    return {
        "venue": "binance", "connection": connection, "closed": OPENED_US + 1000, "code": 1000, "reason": "",
        "acknowledged": acknowledged,
    }  # fmt: skip


def received(wiring: Wiring, events: Sequence[Event], *, epoch: str = EPOCH, **more: Any) -> None:
    """Events of one epoch that ended, numbered as they came; flushed."""
    given: Counter[str] = Counter()
    numbered = []
    for e in events:
        given[e.feed] += 1
        numbered.append(msgspec.structs.replace(e, number=given[e.feed]))
    lasts = {(r.symbol, r.feed): r.last for r in runs((e.symbol, e.feed, e.number) for e in numbered)}
    for x in more.get("losses", ()):
        lasts[x.symbol, x.feed] = max(lasts.get((x.symbol, x.feed), 0), x.last)
    end = EpochEnd(OPENED_US + 2000, "stop", tuple(Range(*key, 1, last) for key, last in lasts.items()))
    made = batch(1, numbered, epoch=epoch, end=end, **more)
    assert wiring.buffer.push(STREAM, BatchCodec().encode(made)) is not None
    assert periodic.flush(wiring, NEVER)["failed"] == {}


def compared(wiring: Wiring, tmp_path: Path, *lines: dict[str, Any]) -> tuple[SentReport, list[tuple[str, str, str]]]:
    path = tmp_path / "sent.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in lines))
    found = audit(wiring, sent=[path])
    assert found.sent is not None
    return found.sent, [(d.what, d.where, d.why) for d in found.differences]


@pytest.mark.parametrize("done", [False, True])
def test_what_is_held_wherever_it_is_and_was_sent_is_in_order(wiring: Wiring, tmp_path: Path, done: bool) -> None:
    books = [event(n, feed=ORDERBOOK, data=f'{{"u":{n}}}') for n in (1, 2)]
    received(wiring, [event(1), event(2), event(2), *books])
    if done:
        finish(wiring)
    lines = [line(n) for n in (1, 2, 2)] + [line(n, feed=ORDERBOOK, data=f'{{"u":{n}}}') for n in (1, 2)]
    report, differences = compared(wiring, tmp_path, opened(), *lines, closed())
    assert (report, differences) == (SentReport(sent=5, held=4, repeated=1), [])


def test_what_waits_in_redis_is_held(wiring: Wiring, tmp_path: Path) -> None:
    assert wiring.buffer.push(STREAM, BatchCodec().encode(batch(1, [event(1), event(2)]))) is not None
    report, differences = compared(wiring, tmp_path, opened(), line(1), line(2))
    assert (report, differences) == (SentReport(sent=2, held=2), [])


def test_an_event_that_is_nowhere_is_named(wiring: Wiring, tmp_path: Path) -> None:
    received(wiring, [event(1), event(4)])
    report, differences = compared(wiring, tmp_path, opened(), *map(line, (1, 2, 3, 4)), closed())
    why = "2 events from here on were sent and are nowhere, and no loss, gap or quarantine says so"
    assert (report.missing, differences) == (2, [("event 2", FEED, why)])


def _loss(count: int) -> Loss:
    return Loss("btcusdt", TRADE, 3, 2 + count, count, OPENED_US + 2, OPENED_US + 3, "queue_full")


GAP = Gap("btcusdt", TRADE, 2, "2", "3", 2, OPENED_US + 1, OPENED_US + 4, "sequence")
FRAME = Quarantined("?", "?", 1, OPENED_US + 2, "not_json", b"{")


@pytest.mark.parametrize("reason", ["loss", "gap", "frame"])
def test_what_is_missing_inside_a_loss_a_gap_or_a_quarantined_frame_is_explained(
    wiring: Wiring, tmp_path: Path, reason: str
) -> None:
    end = EpochEnd(OPENED_US + 9, "stop", (Range("btcusdt", TRADE, 1, 4 if reason == "loss" else 2),))
    units: list[Event | Quarantined] = [event(1), msgspec.structs.replace(event(4), number=2)]
    units += [FRAME] if reason == "frame" else []
    made = batch(
        1, units, end=end, losses=[_loss(2)] if reason == "loss" else [], gaps=[GAP] if reason == "gap" else []
    )
    assert wiring.buffer.push(STREAM, BatchCodec().encode(made)) is not None
    for flushed in (False, True):
        if flushed:
            assert periodic.flush(wiring, NEVER)["failed"] == {}
        report, differences = compared(wiring, tmp_path, opened(), *map(line, (1, 2, 3, 4)), closed())
        assert (report.explained, report.missing, differences) == (2, 0, [])


def test_an_unclean_end_explains_what_is_missing_until_the_connection_says_its_end(
    wiring: Wiring, tmp_path: Path
) -> None:
    lines = opened(), *map(line, (1, 2, 3, 4)), closed()
    unclean = Loss("btcusdt", TRADE, 3, 3, None, OPENED_US + 1, OPENED_US + 9, "unclean_end")
    end = EpochEnd(OPENED_US + 1, "unclean_end", (Range("btcusdt", TRADE, 1, 2),))
    finding = batch(2**62, [], end=end, losses=[unclean], kind="finding")
    for made in (batch(1, [event(1), event(2)]), finding):
        assert wiring.buffer.push(STREAM, BatchCodec().encode(made)) is not None
    assert periodic.flush(wiring, NEVER)["failed"] == {}
    report, differences = compared(wiring, tmp_path, *lines)
    assert (report.explained, report.missing, differences) == (2, 0, [])
    said = batch(2, [], end=EpochEnd(OPENED_US + 9, "stop", end.last_numbers))
    assert wiring.buffer.push(STREAM, BatchCodec().encode(said)) is not None
    report, differences = compared(wiring, tmp_path, *lines)
    assert (report.explained, report.missing, len(differences)) == (0, 2, 1)


def test_more_missing_than_declared_is_named_and_so_is_what_lies_outside(wiring: Wiring, tmp_path: Path) -> None:
    received(wiring, [event(1), event(4)], losses=[_loss(1)])
    report, differences = compared(wiring, tmp_path, opened(), *map(line, (1, 2, 3, 4)), closed())
    why = "2 sent events are nowhere, but losses and gaps speak of 1"
    assert (report.explained, differences) == (2, [("losses and gaps", FEED, why)])
    report, differences = compared(wiring, tmp_path, opened(), *map(line, (1, 4, 50)), line(60), closed())
    assert (report.missing, [d[0] for d in differences]) == (2, ["event 50"])


def test_the_end_of_a_connection_that_the_client_left_may_be_unread(wiring: Wiring, tmp_path: Path) -> None:
    received(wiring, [event(1)])
    lines = opened(), line(1), line(2), line(3)
    report, differences = compared(wiring, tmp_path, *lines, closed(acknowledged=False))
    assert (report.unread, differences) == (2, [])
    report, differences = compared(wiring, tmp_path, *lines, closed())
    assert (report.missing, len(differences)) == (2, 1)
    report, differences = compared(wiring, tmp_path, opened(), line(1), line(2, maybe=True), closed())
    assert (report.missing, report.unread, differences) == (0, 0, [])


def test_what_was_never_sent_or_differs_or_stands_twice_is_named(wiring: Wiring, tmp_path: Path) -> None:
    received(wiring, [event(1), event(2, data='{"t":2,"p":"other"}'), event(9)])
    _, differences = compared(wiring, tmp_path, opened(), line(1), line(2), closed())
    assert sorted(differences) == [
        ("event 2", FEED, "it is not, byte for byte, what was sent"), ("event 9", FEED, "no exchange sent it"),
    ]  # fmt: skip


def test_a_trade_that_stands_in_two_segments_is_named(wiring: Wiring, tmp_path: Path) -> None:
    """No way leads there but by hand; the numbers agree, and only identity tells."""
    received(wiring, [event(1)])
    periodic.flush(wiring, NEVER, seal=True)
    received(wiring, [event(7)], epoch="0b" * 16)
    (_, second) = wiring.ledger.segments()
    with sqlite3.connect(wiring.settings.storage.segments_path / second.path) as by_hand:
        by_hand.execute("UPDATE trades SET exchange_sequence_id = '1', data = ?", (event(1).data,))
    by_hand.close()
    assert audit(wiring, deep=True).differences == []
    _, differences = compared(wiring, tmp_path, opened(), line(1), line(1), closed())
    assert ("event 1", FEED, "it stands twice under one identity") in differences


def test_refetched_trades_and_events_that_the_exchange_kept_back_are_no_faults(wiring: Wiring, tmp_path: Path) -> None:
    received(wiring, [event(1), event(3)])
    fetched: Batch = batch(
        1, [event(1, "2", data='{"id":2}')], epoch="0c" * 16, stream="binance-rest", kind="rest",
        end=EpochEnd(OPENED_US + 5, "repair", (Range("btcusdt", TRADE, 1, 1),)),
    )  # fmt: skip
    assert wiring.buffer.push("binance-rest", BatchCodec().encode(fetched)) is not None
    withheld = {**line(2), "text": "x", "withheld": True}
    del withheld["data"]
    report, differences = compared(wiring, tmp_path, opened(), line(1), withheld, line(3), closed())
    assert (report, differences) == (SentReport(sent=2, held=3, refetched=1), [])


@pytest.mark.parametrize("at", ["rows", "reasons"])
def test_a_segment_that_is_removed_while_it_is_read_is_read_from_its_objects(
    wiring: Wiring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    received(wiring, [event(1), event(2)])
    owner, name = (SealedSegment, "rows") if at == "rows" else (reasons, "gaps_and_quarantined")
    real = getattr(owner, name)

    def removed_first(*arguments: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        finish(wiring)
        return real(*arguments)

    monkeypatch.setattr(owner, name, removed_first)
    report, differences = compared(wiring, tmp_path, opened(), line(1), line(2), closed())
    assert (report, differences) == (SentReport(sent=2, held=2), [])
    assert len(wiring.ledger.objects()) == 1
