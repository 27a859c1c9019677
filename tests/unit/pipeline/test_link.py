"""One connection at work: whatever ends it, what had been received by then is in the queue."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import cast

import pytest

from app.connection.actions import Close
from app.connection.session import Session
from app.connection.socket import ConnectionEnded, SendFailed, Socket
from app.exchanges import exchange_of
from app.exchanges.base import Subscription
from app.model import TRADE, Event
from app.pipeline import link as module
from app.pipeline.link import Link, Progress
from app.pipeline.outbox import Allowance, Epoch, Outbox
from app.pipeline.reader import Reader
from app.sequence import Continuity

NOW_US = 1_790_000_000_000_000


def trade(number: int) -> bytes:
    row = f'{{"instId":"BTC-USDT","tradeId":"{number}","px":"1","sz":"1","side":"buy","ts":"{NOW_US // 1000}","count":"1"}}'
    return f'{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{row}]}}'.encode()


class Wire:
    """A socket: what each `receive` gives, or raises."""

    def __init__(self, *given: list[bytes] | Exception) -> None:
        self.given = list(given)
        self.dry = True

    def send(self, frame: str | None) -> None:
        """Taken."""

    def say_goodbye(self, code: int) -> None:
        """Said."""

    def receive(self, timeout_s: float) -> list[bytes]:
        if not self.given:
            return []
        one = self.given.pop(0)
        if isinstance(one, Exception):
            raise one
        return one


class Ends(Reader):
    """Reads nothing: the connection ends like this."""

    def __init__(self, end: Close | Exception) -> None:
        self._given = end

    def read(self, link: object) -> Close:
        if isinstance(self._given, Exception):
            raise self._given
        return self._given


def linked(wire: Wire, end: Close | Exception, box: Outbox, now_s: Callable[[], float]) -> Link:
    okx = exchange_of("okx", None)
    asked = Subscription(("BTC-USDT",), (TRADE,), okx.orderbook_channels[0], okx.trade_channels[0])
    session = Session(okx, asked, Continuity(), epoch="0a" * 16, dead_timeout_s=30, data_timeout_s={"BTC-USDT": 10.0})
    return Link(
        "okx-0", cast(Socket, wire), session, box.begin(Epoch("0a" * 16, NOW_US)), Progress(), over=lambda: None,
        draining=lambda: None, wish=lambda rotate: None, joins=SimpleQueue(), reader=Ends(end), unlisted=dict,
        book=lambda symbol: pytest.fail("no book is asked for"), signer=None, monotonic_s=now_s, wall_us=lambda: NOW_US,
    )  # fmt: skip


def outbox(max_events: int = 500) -> Outbox:
    return Outbox(
        "okx-0", "okx", max_bytes=10**6, share_bytes=lambda: 10**6, allowance=Allowance(10**6), max_events=max_events
    )


class Clock:
    """Goes on with each sleep; asking takes a millisecond."""

    def __init__(self) -> None:
        self.now_s, self.slept_s = 1000.0, 0.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s += seconds


def numbers(box: Outbox) -> list[str]:
    found: list[Event] = []
    while (batch := box.take()) is not None:
        found += batch.events
    return [event.sequence_id for event in found]


def test_what_had_come_before_a_request_could_not_be_sent_is_kept() -> None:
    box, wire = outbox(), Wire([trade(1)], [trade(2), trade(3)], ConnectionEnded(None, "gone"), [trade(4)])
    link = linked(wire, SendFailed(None, "BrokenPipeError while sending"), box, Clock())
    assert link.run({}) == Close("stream_ended", "BrokenPipeError while sending")
    assert numbers(box) == ["1", "2", "3"]


def test_what_a_venue_sends_behind_its_close_frame_is_not_read() -> None:
    box, wire = outbox(), Wire([trade(1)])
    link = linked(wire, ConnectionEnded(1001, "going away"), box, Clock())
    assert link.run({}).reason == "close_frame"
    assert numbers(box) == []


def test_a_goodbye_keeps_what_was_under_way_and_gives_way_to_a_sender_that_is_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "sleep", clock.sleep)
    box, wire = outbox(max_events=2), Wire([trade(n) for n in (1, 2, 3, 4)], [trade(5)], ConnectionEnded(1000, ""))
    link = linked(wire, Close("stop", ""), box, clock)
    assert link.run({}) == Close("stop", "")
    assert clock.slept_s > 0 and not link.cut_short
    assert numbers(box) == ["1", "2", "3", "4", "5"]
