"""The way from memory to Redis: whatever goes wrong, the batch in hand is delivered or declared lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.buffer.spool import Bound, Spool
from app.codec import BatchCodec
from app.model import Batch, EpochEnd, Event, Range
from app.pipeline.carrier import Carrier
from app.pipeline.outbox import Allowance, Epoch, Outbox
from app.pipeline.sender import Sender
from tests.support.rig import Rig

STREAM = "binance-0"


def parts(rig: Rig, spool_root: Path, publish: Callable[[float], bool] = lambda now_s: False) -> tuple[Outbox, Sender]:
    outbox = Outbox(
        STREAM, "binance", max_bytes=10**6, share_bytes=lambda: 10**6, allowance=Allowance(10**6), max_events=10
    )
    wiring = rig.wiring()
    spool = Spool(Bound(spool_root, 10**6, time.monotonic), STREAM)
    assert spool.lock()
    lease = wiring.lease(f"stream:{STREAM}", 10)
    assert lease.acquire()
    sender = Sender(
        STREAM, outbox, wiring.buffer, spool, lease, interval_s=0.01, silence=wiring.carrier.silence,
        monotonic_s=time.monotonic, crowd_events=10**6, crowded=lambda: None, publish=publish,
    )  # fmt: skip
    return outbox, sender


def delivered(rig: Rig) -> list[Batch]:
    return [BatchCodec().decode(element) for element in rig.wiring().buffer.head(STREAM, 100, 10**7)]


def carry(sender: Sender) -> None:
    Carrier(sender._buffer.push_all, 0.01, time.monotonic).carry(sender)


def run_out(sender: Sender) -> None:
    """Deliver everything, as at a stop."""
    carry(sender)
    sender.finish(time.monotonic() + 10)
    assert sender.finished.wait(20)


def event(number: int, data: str = "{}") -> Event:
    return Event("btcusdt", "trade", number, str(number), 1, None, data)


def test_a_batch_whose_encoding_fails_once_is_encoded_again(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, sender = parts(rig, tmp_path)
    lane = outbox.begin(Epoch("ab" * 16, 1))
    assert lane.add([event(1)]) == []
    encode, failures = BatchCodec.encode, [MemoryError()]

    def short_of_memory(self: BatchCodec, batch: Batch) -> bytes:
        if batch.events and failures:
            raise failures.pop()
        return encode(self, batch)

    monkeypatch.setattr(BatchCodec, "encode", short_of_memory)
    run_out(sender)
    assert [e.number for batch in delivered(rig) for e in batch.events] == [1]
    assert failures == []


def test_what_is_added_after_the_last_look_and_before_the_stop_is_delivered(rig: Rig, tmp_path: Path) -> None:
    """The last events of a connection and its end come while the sender, which found nothing, speaks to Redis."""
    deadline: list[float] = []

    def stop(now_s: float) -> bool:
        if not deadline:
            assert lane.add([event(1)]) == []
            lane.end(EpochEnd(9, "stop", (Range("btcusdt", "trade", 1, 1),)))
            deadline.append(now_s + 10)
            sender.finish(deadline[0])
        return False

    outbox, sender = parts(rig, tmp_path, stop)
    lane = outbox.begin(Epoch("ab" * 16, 1))
    assert outbox.take() is not None  # the batch that says it begins
    carry(sender)
    assert sender.finished.wait(20)
    (batch,) = delivered(rig)
    assert [e.number for e in batch.events] == [1]
    assert batch.end is not None and batch.end.reason == "stop"


def test_a_batch_that_can_never_be_encoded_goes_out_as_the_declaration_of_its_loss(rig: Rig, tmp_path: Path) -> None:
    outbox, sender = parts(rig, tmp_path)
    lane = outbox.begin(Epoch("ab" * 16, 1))
    assert lane.add([event(1, "\ud800")]) == []
    assert lane.add([event(2)]) == []
    run_out(sender)
    losses = [loss for batch in delivered(rig) for loss in batch.losses]
    assert [(loss.symbol, loss.feed, loss.first, loss.last, loss.count, loss.cause) for loss in losses] == [
        ("btcusdt", "trade", 1, 2, 2, "not_encodable")
    ]


def test_batches_go_to_redis_in_order_past_a_spool(rig: Rig, tmp_path: Path) -> None:
    outbox, sender = parts(rig, tmp_path)
    held = Batch(STREAM, "binance", "cd" * 16, 1, 1)
    sender._spool.append(BatchCodec().encode(held))
    lane = outbox.begin(Epoch("ab" * 16, 1))
    for number in range(1, 36):
        assert lane.add([event(number)]) == []
    run_out(sender)
    found = delivered(rig)
    assert found[0].epoch == held.epoch
    assert [e.number for batch in found for e in batch.events] == list(range(1, 36))
    assert not sender._spool
