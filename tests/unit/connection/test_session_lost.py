"""A venue that counts every frame of a connection: what a jump of that count means for the books on it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.connection.session import FeedState, Output, Send, Session
from app.exchanges import exchange_of
from app.exchanges.base import Exchange, Subscription
from app.model import ORDERBOOK, TRADE, UNDECODED, Event, Gap, Quarantined
from app.sequence import Continuity

ADVANCED = exchange_of("coinbase", "advanced")
EPOCH = "0e" * 16
CAUSE = "connection_sequence"


class Link:
    """A session with a clock of its own; everything the venue is asked at first has been sent."""

    def __init__(self, *symbols: str, exchange: Exchange = ADVANCED, settled: bool = True) -> None:
        channels = exchange.orderbook_channels[0], exchange.trade_channels[0]
        asked = Subscription(symbols or ("BTC-USD", "ETH-USD"), (ORDERBOOK, TRADE), *channels)
        self.now_s = 5000.0
        self.session = Session(
            exchange, asked, Continuity(), epoch=EPOCH,
            dead_timeout_s=300, data_timeout_s=dict.fromkeys(asked.symbols, 300),
        )  # fmt: skip
        self.first = self.session.opened(self.now_s, self.now_us)
        self.sent = frames_of(self.first)
        if settled:
            self.pass_s(30)

    @property
    def now_us(self) -> int:
        return 1_790_000_000_000_000 + round(self.now_s * 1_000_000)

    def receive(self, *frames: str) -> list[Output]:
        outputs: list[Output] = []
        for frame in frames:
            self.now_s += 0.001
            outputs += self.session.received(frame.encode(), self.now_us, self.now_s)
        return outputs

    def pass_s(self, seconds: float) -> list[str]:
        """Let time pass; returns the requests sent meanwhile."""
        sent: list[str] = []
        for _ in range(round(seconds / 0.25)):
            self.now_s += 0.25
            sent += frames_of(self.session.tick(self.now_s, self.now_us))
        self.sent += sent
        return sent


def frames_of(outputs: Sequence[Output]) -> list[str]:
    """The requests among the outputs, PINGs left out."""
    return [output.frame for output in outputs if isinstance(output, Send) and output.frame is not None]


def book(number: int, *symbols: str, kind: str = "update") -> str:
    rows = [{"type": kind, "product_id": symbol, "updates": []} for symbol in symbols or ("BTC-USD",)]
    return json.dumps({"channel": "l2_data", "sequence_num": number, "events": rows})


def trade(number: int, id: int, symbol: str = "BTC-USD") -> str:
    rows = [{"product_id": symbol, "trade_id": str(id)}]
    return json.dumps(
        {"channel": "market_trades", "sequence_num": number, "events": [{"type": "update", "trades": rows}]}
    )


def beat(number: int) -> str:
    return json.dumps({"channel": "heartbeats", "sequence_num": number, "events": [{"heartbeat_counter": number}]})


def answer(number: int) -> str:
    return json.dumps({"channel": "subscriptions", "sequence_num": number, "events": [{"subscriptions": {}}]})


def anew(*symbols: str) -> list[str]:
    return [
        f'{{"type":"{kind}","product_ids":["{symbol}"],"channel":"level2"}}'
        for symbol in symbols
        for kind in ("unsubscribe", "subscribe")
    ]


def gaps(outputs: Sequence[Output]) -> list[Gap]:
    return [output for output in outputs if isinstance(output, Gap)]


def holes(outputs: Sequence[Output]) -> list[tuple[str, int, str, str]]:
    return [(gap.symbol, gap.number, gap.from_id, gap.to_id) for gap in gaps(outputs)]


def test_while_every_number_follows_nothing_is_said_whatever_the_frames_are() -> None:
    link = Link()
    outputs = link.receive(
        book(0, kind="snapshot"), answer(1), book(2, "ETH-USD", kind="snapshot"), beat(3), trade(4, 7), book(5), beat(6)
    )
    assert gaps(outputs) == []
    assert link.pass_s(5) == []


def test_a_jump_is_a_hole_in_every_book_and_each_is_asked_for_anew() -> None:
    link = Link()
    link.receive(book(0, "BTC-USD", "ETH-USD", kind="snapshot"), book(1, "BTC-USD"))
    before_us = link.now_us
    outputs = link.receive(book(4, "ETH-USD"))
    assert gaps(outputs) == [
        Gap("BTC-USD", ORDERBOOK, 3, "2", "3", None, before_us, link.now_us, CAUSE),
        Gap("ETH-USD", ORDERBOOK, 2, "2", "3", None, before_us, link.now_us, CAUSE),
    ]
    assert [type(output) for output in outputs] == [Gap, Gap, Event], "the hole comes before the event behind it"
    assert link.pass_s(5) == anew("BTC-USD", "ETH-USD")


@pytest.mark.parametrize("shown_by", [beat(9), answer(9), trade(9, 7), book(9, "ETH-USD")])
def test_any_frame_shows_the_hole(shown_by: str) -> None:
    link = Link()
    link.receive(book(7))
    assert holes(link.receive(shown_by)) == [("BTC-USD", 2, "8", "8"), ("ETH-USD", 1, "8", "8")]


def test_the_first_number_of_a_connection_is_taken_as_it_is_and_a_new_connection_begins_anew() -> None:
    for first in (0, 1, 22):
        assert gaps(Link().receive(book(first), beat(first + 1))) == []


def test_a_number_that_goes_back_is_a_hole_too() -> None:
    link = Link("BTC-USD")
    assert holes(link.receive(book(7), book(7), book(3), book(4))) == [
        ("BTC-USD", 2, "7", "7"),
        ("BTC-USD", 3, "7", "3"),
    ]


def test_a_frame_that_is_not_ours_counts_and_one_of_a_book_that_cannot_be_read_is_missing() -> None:
    link = Link("BTC-USD")
    stranger, broken_trade = book(1, "SOL-USD"), trade(2, 5).replace('"trade_id"', '"id"')
    outputs = link.receive(book(0), stranger, broken_trade, beat(3))
    assert gaps(outputs) == []
    broken_book = book(4).replace('"update"', '"upset"')
    outputs += link.receive(broken_book, "{", beat(6))
    assert holes(outputs) == [("BTC-USD", 2, "4", "5")]
    quarantined = [
        (output.symbol, output.number, output.frame) for output in outputs if isinstance(output, Quarantined)
    ]
    assert quarantined == [
        (UNDECODED, number, frame.encode())
        for number, frame in enumerate([stranger, broken_trade, broken_book, "{"], 1)
    ]


def test_a_frame_that_is_not_ours_shows_the_hole_before_it() -> None:
    link = Link("BTC-USD")
    outputs = link.receive(book(0), book(2, "SOL-USD"))
    assert [type(output) for output in outputs] == [Event, Gap, Quarantined]
    assert holes(outputs) == [("BTC-USD", 2, "1", "1")]


def test_a_book_without_an_event_since_its_hole_has_that_hole_on_record_and_is_asked_for_once_more() -> None:
    link = Link("BTC-USD")
    assert holes(link.receive(book(0), beat(2), beat(4))) == [("BTC-USD", 2, "1", "1")]
    assert link.pass_s(5) == anew("BTC-USD"), "the second hole came while the first request was waiting"
    assert holes(link.receive(beat(6))) == []
    assert link.pass_s(5) == anew("BTC-USD"), "the snapshot may have been in the second hole"
    assert holes(link.receive(book(7, kind="snapshot"), book(9))) == [("BTC-USD", 3, "8", "8")]


def test_a_hole_while_half_a_request_is_sent_does_not_end_with_the_book_left() -> None:
    link = Link("BTC-USD")
    link.receive(book(0), book(2))
    sent = frames_of(link.session.tick(link.now_s, link.now_us))
    assert sent == anew("BTC-USD")[:1]
    link.receive(book(4))
    assert sent + link.pass_s(5) == anew("BTC-USD")


def test_a_book_that_was_not_asked_for_yet_has_no_hole_and_stays_asked_for() -> None:
    link = Link("BTC-USD", "ETH-USD", settled=False)
    while not any('"BTC-USD"' in frame and "level2" in frame for frame in link.sent):
        link.pass_s(0.25)
    assert holes(link.receive(answer(0), answer(2))) == [("BTC-USD", 1, "1", "1")]
    rest = link.pass_s(10)
    assert [frame for frame in rest if "level2" in frame] == [anew("ETH-USD")[1], *anew("BTC-USD")]


def test_a_feed_that_the_venue_refused_has_no_hole_and_is_not_asked_for_again() -> None:
    link = Link()
    link.receive('{"type":"error","message":"ETH-USD is not a valid product"}')
    assert link.session.feeds["ETH-USD", ORDERBOOK].state is FeedState.REJECTED
    assert holes(link.receive(book(0), book(2))) == [("BTC-USD", 2, "1", "1")]
    assert link.pass_s(5) == anew("BTC-USD")


def test_trades_show_their_holes_by_their_own_ids() -> None:
    link = Link("BTC-USD")
    outputs = link.receive(trade(0, 10), trade(2, 11), trade(3, 14))
    assert [(gap.feed, gap.from_id, gap.to_id, gap.size, gap.cause) for gap in gaps(outputs)] == [
        (ORDERBOOK, "1", "1", None, CAUSE),
        (TRADE, "12", "13", 2, "missing_ids"),
    ]
    assert link.pass_s(5) == anew("BTC-USD")


@given(st.lists(st.sampled_from(["BTC-USD", "ETH-USD", "beat", "lost"]), max_size=40))
@settings(deadline=None)
def test_no_book_goes_on_over_a_missing_frame_without_a_record(frames: list[str]) -> None:
    """Against a plain account: between two events of a book with a missing frame between them stands one gap."""
    link = Link()
    outputs, lost_since, wanted = [], {"BTC-USD": False, "ETH-USD": False}, []
    events = dict.fromkeys(lost_since, 0)
    for number, kind in enumerate(["beat", *frames, "beat"]):
        if kind == "lost":
            lost_since = dict.fromkeys(lost_since, True)
            continue
        for symbol, lost in lost_since.items():
            if lost and (symbol, events[symbol] + 1) not in wanted:
                wanted.append((symbol, events[symbol] + 1))
        lost_since = dict.fromkeys(lost_since, False)
        outputs += link.receive(beat(number) if kind == "beat" else book(number, kind))
        if kind != "beat":
            events[kind] += 1
    assert [(gap.symbol, gap.number) for gap in gaps(outputs)] == wanted
    assert len({(gap.symbol, gap.feed, gap.number) for gap in gaps(outputs)}) == len(gaps(outputs)), "a key each"


@pytest.mark.parametrize(("source", "signs"), [("advanced", True), ("exchange", False)])
def test_a_request_says_whether_it_may_be_signed_and_a_ping_does_not(source: str, signs: bool) -> None:
    link = Link("BTC-USD", exchange=exchange_of("coinbase", source), settled=False)
    (first,) = link.first
    assert isinstance(first, Send) and first.sign is signs
    link.now_s += 25
    assert link.session.tick(link.now_s, link.now_us)[-1] == Send(None)
