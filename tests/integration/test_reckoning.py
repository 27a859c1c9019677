"""What nobody lives to tell is found out, declared by the ordinary way, and stays declared once: real Redis, real files."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.sync.server import ServerConnection

from app.buffer.events import EventBuffer
from app.buffer.spool import Bound, Spool
from app.clock import monotonic_s, wall_us
from app.codec import BatchCodec
from app.model import Batch, EpochEnd, Range
from app.pipeline import periodic
from app.pipeline.audit import audit
from app.pipeline.carrier import Carrier
from app.pipeline.flush import Flush
from app.pipeline.outbox import Allowance, Epoch, Outbox
from app.pipeline.reckoning import declare, findings
from app.pipeline.sender import Sender
from app.pipeline.survey import survey
from app.store.ledger import SegmentEntry
from app.store.segment import SealedSegment
from app.wiring import Wiring
from tests.support.batches import OPENED_US, STREAM, batch, event
from tests.support.path import NEVER, Collecting, Scripted, bybit_trade, finish, records, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

A, B = "0a" * 16, "0b" * 16
SECOND_US = 1_000_000
NOTHING = {"unclean_ends": 0, "losses": 0}
#: One connection, with its two feeds.
UNCLEAN = {"unclean_ends": 1, "losses": 2}


def push(wiring: Wiring, *batches: Batch) -> None:
    codec = BatchCodec()
    for one in batches:
        assert wiring.buffer.push(one.stream, codec.encode(one)) is not None


def trades(number: int, first: int, last: int, epoch: str = A, **more: Any) -> Batch:
    """Batch `number` of an epoch with the trades first..last of one market."""
    start = 0 if epoch == A else 1000
    return batch(number, [event(n, str(start + n)) for n in range(first, last + 1)], epoch=epoch, **more)


def later(number: int, first: int, last: int, **more: Any) -> Batch:
    """The same of the connection that came after."""
    return msgspec.structs.replace(trades(number, first, last, B, **more), opened_us=OPENED_US + 60 * SECOND_US)


def end(last: int) -> EpochEnd:
    return EpochEnd(OPENED_US + last + 1, "stop", (Range("btcusdt", "trade", 1, last),))


def flush(wiring: Wiring, **more: Any) -> None:
    assert periodic.flush(wiring, NEVER, **more)["failed"] == {}


def reckon(wiring: Wiring) -> dict[str, object]:
    return periodic.reckon(wiring, NEVER, look_again_s=0)


def going_on(wiring: Wiring, epoch: str) -> None:
    """A stream worker says so."""
    wiring.board.publish(STREAM, {"epoch": epoch}, 60)


def trade_losses(wiring: Wiring) -> list[tuple[Any, ...]]:
    names = ("epoch", "first", "last", "count", "start_us", "end_us", "cause")
    return [tuple(row[name] for name in names) for row in records(wiring, "losses") if row["feed"] == "trade"]


@pytest.fixture
def wiring(rig: Rig) -> Wiring:
    rig.write({"binance": ["btcusdt"]})
    made = rig.wiring()
    going_on(made, B)
    return made


def test_an_epoch_whose_process_died_is_ended_once_it_has_a_successor(wiring: Wiring) -> None:
    going_on(wiring, A)
    push(wiring, trades(1, 1, 5))
    flush(wiring)
    assert reckon(wiring) == NOTHING
    going_on(wiring, B)
    push(wiring, later(1, 1, 2))
    assert reckon(wiring) == NOTHING, "the successor is not stored yet"
    flush(wiring)
    going_on(wiring, A)
    assert reckon(wiring) == NOTHING, "it says itself that it goes on: the clock of the other was wrong"
    going_on(wiring, B)
    assert reckon(wiring) == UNCLEAN
    flush(wiring)
    assert reckon(wiring) == NOTHING
    finish(wiring)
    last_us = OPENED_US + 5
    assert trade_losses(wiring) == [(A, 6, 6, None, last_us, OPENED_US + 60 * SECOND_US, "unclean_end")]
    ends = {
        row["epoch"]: (row["kind"], row["ended_us"], row["reason"], row["last_numbers"])
        for row in records(wiring, "epochs")
    }
    assert ends[A] == ("stream", last_us, "unclean_end", '[["btcusdt","trade",5]]')
    assert ends[B] == ("stream", None, None, None)


@pytest.mark.parametrize("archived", [False, True])
def test_a_real_end_that_comes_later_takes_its_place(wiring: Wiring, archived: bool) -> None:
    """Out of a spool that was out of sight: before, or after what was found out is in the ledger alone."""
    push(wiring, trades(1, 1, 5), later(1, 1, 2))
    flush(wiring)
    reckon(wiring)
    flush(wiring)
    if archived:
        finish(wiring)
    push(wiring, trades(2, 6, 9, end=end(9)))
    flush(wiring)
    assert reckon(wiring) == NOTHING
    finish(wiring)
    ends = {row["epoch"]: (row["reason"], row["last_numbers"]) for row in records(wiring, "epochs")}
    assert ends[A] == ("stop", '[["btcusdt","trade",9]]')


def test_what_is_found_out_never_replaces_a_real_end(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 5), later(1, 1, 2))
    flush(wiring)
    found = findings(wiring, NEVER, look_again_s=0)
    assert [one.epoch for one in found] == [A]
    push(wiring, trades(2, 6, 6, end=end(6)))
    flush(wiring)
    declare(wiring, found)  # it was on its way meanwhile
    finish(wiring)
    assert {row["epoch"]: row["reason"] for row in records(wiring, "epochs")} == {A: "stop", B: None}


def test_a_loss_of_unknown_extent_gives_way_to_the_known_one_at_the_same_number(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 5), later(1, 1, 2))
    flush(wiring)
    reckon(wiring)
    finish(wiring)
    push(wiring, trades(3, 8, 9, end=end(9)))  # its second batch was in a part of the spool that is damaged
    flush(wiring)
    assert reckon(wiring) == NOTHING
    finish(wiring)
    assert trade_losses(wiring) == [(A, 6, 7, 2, OPENED_US + 5, OPENED_US + 8, "buffer_lost")]


def test_nothing_is_declared_lost_while_a_segment_cannot_be_read(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 4))
    flush(wiring, seal=True)
    push(wiring, trades(2, 5, 7), later(1, 1, 2))
    flush(wiring)
    (sealed, _) = wiring.ledger.segments()
    path = wiring.settings.storage.segments_path / sealed.path
    whole = path.read_bytes()
    path.write_bytes(b"not a database" + whole[14:])
    assert reckon(wiring) == NOTHING
    path.write_bytes(whole)
    assert reckon(wiring) == UNCLEAN


def test_what_a_stop_could_bring_nowhere_becomes_the_unclean_end_of_its_epoch(wiring: Wiring, tmp_path: Path) -> None:
    """`batches.abandoned`: list and spool are full, and the deadline of the stop passes with batches in memory."""
    prefix = wiring.settings.redis.prefix
    outbox = Outbox(
        STREAM, "binance", max_bytes=10**6, share_bytes=lambda: 10**6, allowance=Allowance(10**6), max_events=3
    )
    full = EventBuffer(wiring.redis, prefix, 1)
    carrier = Carrier(full.push_all, 0.01, monotonic_s)
    spool = Spool(Bound(tmp_path / "full", 1, monotonic_s), STREAM)
    lease = wiring.lease(f"stream:{STREAM}", 10)
    assert spool.lock() and lease.acquire()
    sender = Sender(
        STREAM, outbox, full, spool, lease, interval_s=0.01, silence=carrier.silence, monotonic_s=monotonic_s,
        crowd_events=10**6, crowded=lambda: None, publish=lambda now_s: False,
    )  # fmt: skip
    lane = outbox.begin(Epoch(A, OPENED_US))
    assert lane.add(event(number) for number in range(1, 10)) == []
    lane.end(end(9))
    carrier.carry(sender)
    sender.finish(monotonic_s() + 0.3)
    assert sender.finished.wait(30)
    spool.close()
    lease.release()
    flush(wiring)
    (stored,) = (span for _, _, span in epoch_spans(wiring))
    assert stored == (1, 3), "an empty list takes one batch of any size; the others were given up"
    push(wiring, later(1, 1, 1))
    flush(wiring)
    assert reckon(wiring) == UNCLEAN
    finish(wiring)
    lost_us = OPENED_US + 60 * SECOND_US
    assert trade_losses(wiring) == [(A, 4, 4, None, OPENED_US + 3, lost_us, "unclean_end")]
    ends = {row["epoch"]: (row["reason"], row["last_numbers"]) for row in records(wiring, "epochs")}
    assert ends[A] == ("unclean_end", '[["btcusdt","trade",3]]')


def epoch_spans(wiring: Wiring) -> list[tuple[str, str, tuple[int, int]]]:
    """(epoch, feed, numbers) of every range in a segment."""
    return [(run.epoch, run.feed, (run.first, run.last)) for run in survey(wiring).records.runs]


def test_an_epoch_without_end_is_found_in_the_ledger_alone(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 3), later(1, 1, 2, end=end(2)))
    finish(wiring)
    assert reckon(wiring) == UNCLEAN
    finish(wiring)
    assert reckon(wiring) == NOTHING
    assert [(x[0], x[1], x[6]) for x in trade_losses(wiring)] == [(A, 4, "unclean_end")]
    assert audit(wiring, deep=True).differences == []


def test_a_connection_that_takes_the_place_of_another_leaves_both_their_ends(wiring: Wiring) -> None:
    """A planned change: both go on for a while, and the board names both."""
    wiring.board.publish(STREAM, {"epoch": A, "successor": {"epoch": B}}, 60)
    push(wiring, trades(1, 1, 3), msgspec.structs.replace(later(1, 1, 2, overlaps=(A,)), opened_us=wall_us()))
    flush(wiring)
    assert reckon(wiring) == NOTHING
    going_on(wiring, B)  # the end of the one that was left is still on its way, who knows where
    assert reckon(wiring) == NOTHING
    push(wiring, trades(2, 4, 5, end=end(5)))
    flush(wiring)
    assert reckon(wiring) == NOTHING
    assert audit(wiring).differences == []


def test_losses_are_declared_for_the_feeds_of_the_plan_of_which_nothing_came(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 5), later(1, 1, 2))
    flush(wiring)
    reckon(wiring)
    finish(wiring)
    found = {(row["symbol"], row["feed"]): (row["first"], row["start_us"]) for row in records(wiring, "losses")}
    assert found == {("btcusdt", "trade"): (6, OPENED_US + 5), ("btcusdt", "orderbook"): (1, OPENED_US)}
    assert audit(wiring, deep=True).totals()["unknown_losses"] == 2


@pytest.mark.row("R2")
def test_a_connection_that_redis_forgot_whole_is_declared_lost(own_redis: RedisProcess, tmp_path: Path) -> None:
    """From its first batch to its last: only the connection after it, of the same process, names it."""

    def speak(connection: ServerConnection, number: int) -> None:
        for trade in range(3):
            connection.send(bybit_trade("BTCUSDT", 10 * number + trade))
        if number < 3:
            assert said.wait(20)
            said.clear()
            connection.close()

    said, admitted = threading.Event(), threading.Event()
    rig = Rig(tmp_path, own_redis.url)
    with Scripted(speak) as venue:
        rig.write(
            {"bybit": ["BTCUSDT"]}, {"bybit": venue.venue},
            websocket={"initial_retry_delay_secs": 0.1}, buffer={"lease_secs": 3},
        )  # fmt: skip
        wiring = rig.wiring()
        wiring.admit = lambda venue, pace: 0.0 if admitted.is_set() else 0.1  # type: ignore[method-assign]
        with Collecting(wiring) as collecting:
            (stream,) = wiring.streams
            epochs: list[str] = []
            for meanwhile in (flush, lambda wiring: wiring.redis.flushall(), lambda wiring: None):
                admitted.set()
                until(lambda: collecting.frames() == 3 * len(epochs) + 3, "the trades of the next connection")
                admitted.clear()
                epochs.append(collecting.runners[stream].state(0.0)["epoch"])
                if len(epochs) < 3:
                    said.set()
                    until(lambda: ended(wiring, epochs[-1]), "its end is on record")
                    meanwhile(wiring)
            collecting.finish()
    flush(wiring)
    until(lambda: not wiring.board.states([stream]), "the board forgets the stream that has stopped")
    first, forgotten, last = epochs
    spans = {row["epoch"]: row for row in wiring.stored.records("epochs")}
    assert {name: row["after"] for name, row in spans.items()} == {first: "", last: forgotten}
    (difference,) = audit(wiring).differences
    assert (difference.where, difference.why) == (
        f"bybit, epoch {forgotten}", "every batch of it was lost: not declared yet",
    )  # fmt: skip

    assert reckon(wiring) == UNCLEAN
    flush(wiring)
    assert reckon(wiring) == NOTHING
    assert audit(wiring).differences == []
    finish(wiring)
    assert reckon(wiring) == NOTHING
    names = ("epoch", "symbol", "feed", "first", "count", "start_us", "end_us", "cause")
    assert [tuple(row[name] for name in names) for row in records(wiring, "losses")] == [
        (forgotten, "BTCUSDT", feed, 1, None, spans[first]["ended_us"], spans[last]["opened_us"], "buffer_lost")
        for feed in ("orderbook", "trade")
    ]
    ends = {row["epoch"]: (row["kind"], row["reason"]) for row in records(wiring, "epochs")}
    assert ends[forgotten] == ("finding", "unclean_end")
    assert audit(wiring, deep=True).totals()["unknown_losses"] == 2


def ended(wiring: Wiring, epoch: str) -> bool:
    """Whether the end of an epoch waits in Redis, or is stored."""
    known = survey(wiring).records.epochs.get(epoch)
    return known is not None and known.reason is not None


def test_a_connection_that_is_in_the_ledger_alone_is_known(wiring: Wiring) -> None:
    push(wiring, trades(1, 1, 3, end=end(3)))
    finish(wiring)
    push(wiring, later(1, 1, 2, after=A))
    flush(wiring)
    assert reckon(wiring) == NOTHING
    assert audit(wiring).differences == []


def test_a_hole_is_declared_also_while_the_segment_before_it_is_being_removed(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stores what shows a hole is the last to see it: nothing later shows it again."""
    push(wiring, trades(1, 1, 3))
    flush(wiring, seal=True)
    flush(wiring, seal=True)
    push(wiring, trades(3, 7, 9, end=end(9)))
    kept = Flush._kept

    def removed_meanwhile(self: Flush, entry: SegmentEntry) -> SealedSegment:
        if entry.number == 1:
            periodic.archive(wiring, NEVER)
        return kept(self, entry)

    monkeypatch.setattr(Flush, "_kept", removed_meanwhile)
    flush(wiring)
    assert [entry.number for entry in wiring.ledger.segments("removed")] == [1]
    found = audit(wiring)
    assert (found.differences, found.totals()["lost"]) == ([], 3)
