"""The thread that brings the batches of all streams of a process to Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path

import pytest

from app.buffer.events import EventBuffer, Outcome
from app.buffer.spool import Bound, Spool
from app.codec import BatchCodec
from app.errors import BufferFull, BufferSilent, BufferUnavailable
from app.model import Batch, Event
from app.pipeline.carrier import NUDGE_S, Carrier, Spacing
from app.pipeline.outbox import Allowance, Epoch, Lane, Outbox
from app.pipeline.sender import Sender
from tests.support.rig import Rig

LONG_S = 20.0
NEVER_S = 600.0
TASK: ContextVar[str] = ContextVar("task")


class Site:
    """A carrier, and streams that it carries for. `asked`: the streams of each question to Redis."""

    def __init__(self, rig: Rig, spools: Path, interval_s: float) -> None:
        self.asked: list[list[str]] = []
        self.refuse: Callable[[], Outcome] | None = None
        self._wiring, self._bound, self._interval_s = rig.wiring(), Bound(spools, 10**6, time.monotonic), interval_s
        self.buffer: EventBuffer = self._wiring.buffer
        self.carrier = Carrier(self._push_all, interval_s, time.monotonic)
        self._senders: list[Sender] = []

    def _push_all(self, elements: Sequence[tuple[str, bytes]]) -> list[Outcome]:
        self.asked.append([stream for stream, _ in elements])
        if self.refuse is not None:
            return [self.refuse() for _ in elements]
        return self.buffer.push_all(elements)

    def stream(self, name: str, publish: Callable[[float], bool] = lambda now_s: False) -> tuple[Lane, Sender]:
        outbox = Outbox(
            name, "okx", max_bytes=10**6, share_bytes=lambda: 10**6, allowance=Allowance(10**6), max_events=3,
            bell=self.carrier.bell,
        )  # fmt: skip
        spool = Spool(self._bound, name)
        lease = self._wiring.lease(f"stream:{name}", 10)
        assert spool.lock() and lease.acquire()
        sender = Sender(
            name, outbox, self.buffer, spool, lease, interval_s=self._interval_s, silence=self.carrier.silence,
            monotonic_s=time.monotonic, crowd_events=10**6, crowded=lambda: None, publish=publish,
        )  # fmt: skip
        self._senders.append(sender)
        return outbox.begin(Epoch("ab" * 16, 1)), sender

    def carry(self) -> None:
        for sender in self._senders:
            self.carrier.carry(sender)

    def finish(self) -> None:
        for sender in self._senders:
            sender.finish(time.monotonic() + LONG_S)
        for sender in self._senders:
            assert sender.finished.wait(LONG_S)

    def batches(self, stream: str) -> list[Batch]:
        return [BatchCodec().decode(element) for element in self.buffer.head(stream, 100, 10**7)]

    def numbers(self, stream: str) -> list[list[int]]:
        """Numbers of the events of each batch that is not empty."""
        return [[event.number for event in batch.events] for batch in self.batches(stream) if batch.events]


def event(number: int) -> Event:
    return Event("BTC-USDT", "trade", number, str(number), 1, None, "{}")


def until(what: Callable[[], object]) -> None:
    until_s = time.monotonic() + LONG_S
    while not what():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_what_all_streams_have_is_pushed_in_one_question(rig: Rig, tmp_path: Path) -> None:
    site = Site(rig, tmp_path, NEVER_S)
    for name in ("a", "b", "c"):
        lane, _ = site.stream(name)
        assert lane.add([event(1), event(2)]) == []
    site.carrier._runs = True  # the rounds are this test's
    site.carry()
    site.carrier._arrived()
    site.carrier._go()
    assert site.asked == [["a", "b", "c"]]
    assert {name: site.numbers(name) for name in "abc"} == {key: [[1, 2]] for key in "abc"}


def test_what_comes_first_leaves_at_once_and_what_follows_waits_for_the_round_or_a_full_batch(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pipeline.carrier.IDLE_S", NEVER_S)
    site = Site(rig, tmp_path, NEVER_S)
    lane, _ = site.stream("a")
    assert lane._outbox.take() is not None  # the batch that says it begins
    site.carry()
    until(lambda: site.carrier._round_s and site.carrier.bell.idle)
    assert lane.add([event(1)]) == []
    until(lambda: site.numbers("a") == [[1]] and not site.carrier.bell.idle)
    assert lane.add([event(2)]) == [] and lane.add([event(3)]) == []
    assert lane.add([event(4)]) == []  # a full batch
    until(lambda: site.numbers("a") == [[1], [2, 3, 4]])
    assert lane.add([event(5)]) == []
    site.finish()
    assert site.numbers("a") == [[1], [2, 3, 4], [5]]


@pytest.mark.parametrize(("took_s", "after_s"), [(0.0, 0.05), (0.01, 0.05), (0.1, 0.4), (5.0, 1.0)])
def test_where_rounds_take_long_they_come_less_often(took_s: float, after_s: float) -> None:
    spacing = Spacing(0.05)
    for _ in range(200):
        seen_s = spacing.after_s(took_s)
    assert seen_s == pytest.approx(after_s, abs=0.001)


def test_one_round_that_takes_long_hardly_delays_the_next() -> None:
    spacing = Spacing(0.05)
    for _ in range(200):
        assert spacing.after_s(0.01) == 0.05
    assert spacing.after_s(0.1) < 0.07
    assert [spacing.after_s(0.01) for _ in range(16)][-1] == 0.05


def test_redis_that_does_not_answer_one_stream_is_asked_by_none_and_all_batches_are_kept_on_disk(
    rig: Rig, tmp_path: Path
) -> None:
    site = Site(rig, tmp_path, 0.01)
    lanes = {name: site.stream(name)[0] for name in "abc"}
    site.refuse = lambda: BufferSilent("no answer")
    site.carry()
    for lane in lanes.values():
        assert lane.add([event(1), event(2)]) == []
    until(lambda: all(sender.spool_events == 2 for sender in site._senders))
    asked = len(site.asked)
    until(lambda: site.carrier.silence.until_s < time.monotonic())
    assert asked <= 3, "once it was silent nobody asked again"
    site.refuse = None
    until(lambda: [sender.spool_events for sender in site._senders] == [0, 0, 0])
    site.finish()
    assert {name: site.numbers(name) for name in "abc"} == {key: [[1, 2]] for key in "abc"}


@pytest.mark.parametrize("refusal", [None, BufferFull("maxmemory"), BufferUnavailable("WRONGTYPE")])
def test_what_redis_refuses_one_stream_keeps_no_other_from_asking(
    refusal: Outcome, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(rig, tmp_path, 0.01)
    refused, (lane, _) = site.stream("a"), site.stream("b")
    push_all = site.buffer.push_all

    def push(elements: Sequence[tuple[str, bytes]]) -> list[Outcome]:
        return [refusal if one[0] == "a" else push_all([one])[0] for one in elements]

    monkeypatch.setattr(site.buffer, "push_all", push)
    site.carry()
    assert refused[0].add([event(1)]) == []
    until(lambda: refused[1].spool_events == 1)
    assert lane.add([event(1)]) == []
    until(lambda: site.numbers("b") == [[1]])
    assert site._senders[1].spool_events == 0 and site.carrier.silence.until_s == 0
    monkeypatch.undo()
    until(lambda: refused[1].spool_events == 0)
    site.finish()
    assert site.numbers("a") == [[1]]


def test_a_stream_whose_disk_fails_disturbs_no_other(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(rig, tmp_path, 0.01)
    site.stream("a")
    lane, _ = site.stream("b")
    look = Spool._files

    def broken(spool: Spool) -> list[Path]:
        if spool.directory.name == "a":
            raise OSError(5, "Input/output error")
        return look(spool)

    for sender in site._senders:
        sender._spool._waiting = None
    monkeypatch.setattr(Spool, "_files", broken)
    site.carry()
    assert lane.add([event(1)]) == []
    until(lambda: site.numbers("b") == [[1]])
    monkeypatch.undo()
    site.finish()


def test_a_stream_whose_state_cannot_be_told_disturbs_no_other(rig: Rig, tmp_path: Path) -> None:
    def broken(now_s: float) -> bool:
        raise ZeroDivisionError

    site = Site(rig, tmp_path, 0.01)
    site.stream("a", broken)
    lane, _ = site.stream("b")
    site.carry()
    assert lane.add([event(1)]) == []
    until(lambda: site.numbers("b") == [[1]])
    site.finish()


def test_a_question_that_fails_without_a_name_leaves_every_batch_in_hand(rig: Rig, tmp_path: Path) -> None:
    def broken() -> Outcome:
        raise MemoryError

    site = Site(rig, tmp_path, 0.01)
    lane, _ = site.stream("a")
    site.refuse = broken
    site.carry()
    assert lane.add([event(1)]) == []
    until(lambda: len(site.asked) >= 1)
    site.refuse = None
    site.finish()
    assert site.numbers("a") == [[1]]


def test_a_flush_is_asked_for_on_a_thread_of_its_own_once_at_a_time_and_once_a_second(rig: Rig) -> None:
    now_s, go = [100.0], threading.Event()
    carrier = Carrier(rig.wiring().buffer.push_all, NEVER_S, lambda: now_s[0])
    asked: list[float] = []

    def ask() -> None:
        asked.append(now_s[0])
        assert go.wait(LONG_S)

    carrier.nudge(ask)
    until(lambda: asked)
    now_s[0] += NUDGE_S
    carrier.nudge(ask)  # the first has no answer yet
    go.set()
    until(lambda: not carrier._nudging.locked())
    carrier.nudge(ask)
    until(lambda: len(asked) == 2 and not carrier._nudging.locked())
    carrier.nudge(ask)  # a second is not over
    now_s[0] += NUDGE_S
    carrier.nudge(ask)
    until(lambda: len(asked) == 3 and not carrier._nudging.locked())
    assert asked == [100.0, 100.0 + NUDGE_S, 100.0 + 2 * NUDGE_S]


def test_the_thread_ends_with_the_last_stream_and_begins_again_with_the_next(rig: Rig, tmp_path: Path) -> None:
    site = Site(rig, tmp_path, 0.01)
    site.stream("a")
    site.carry()
    site.finish()
    until(lambda: not site.carrier._runs)
    site._senders.clear()
    lane, _ = site.stream("b")
    assert lane.add([event(1)]) == []
    site.carry()
    site.finish()
    assert site.numbers("b") == [[1]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_carrier_that_dies_leaves_no_stream_waiting(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(rig, tmp_path, 0.01)
    _, sender = site.stream("a")

    died: list[threading.Thread] = []

    def die() -> None:
        died.append(threading.current_thread())
        raise SystemExit

    monkeypatch.setattr(site.carrier, "_go", die)
    site.carry()
    assert sender.finished.wait(LONG_S)
    died[0].join(LONG_S)


def test_a_stream_is_carried_in_the_context_of_its_task(rig: Rig, tmp_path: Path) -> None:
    seen: set[str] = set()

    def publish(now_s: float) -> bool:
        seen.add(TASK.get("none"))
        return False

    site = Site(rig, tmp_path, 0.01)
    site.stream("a", publish)
    TASK.set("this one")
    site.carry()
    site.finish()
    assert seen == {"this one"}
