"""Which books are to be asked for, and which answer begins one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connection.actions import Fetch
from app.connection.snapshots import AHEAD_S, ASK_EVERY_S, Snapshots
from app.exchanges import EXCHANGES
from app.exchanges.base import Decoded, Subscription
from app.model import ORDERBOOK, TRADE
from app.sequence import Continuity

BINANCE = EXCHANGES["binance"]
T = 1_790_000_000_000_000


def snapshots(
    symbols: Sequence[str] = ("btcusdt",), channel: str = "depth@100ms", feeds: Sequence[str] = (ORDERBOOK,)
) -> Snapshots:
    return Snapshots(BINANCE, Subscription(tuple(symbols), tuple(feeds), channel, "trade"))


def change(first: int, last: int, symbol: str = "btcusdt") -> Decoded:
    return Decoded(symbol, ORDERBOOK, f"depth@100ms-{first}-{last}", T, "{}", first - 1, last, True)


def answer(last: int, symbol: str = "btcusdt") -> Decoded:
    return BINANCE.asked_book(symbol, b'{"lastUpdateId":%d,"bids":[],"asks":[]}' % last)


class Feed:
    """Changes as they come, judged as a session does, and the questions that follow from them."""

    def __init__(self, known: Snapshots) -> None:
        self.known, self.continuity, self.now_s = known, Continuity(), 100.0

    def change(self, first: int, last: int, symbol: str = "btcusdt") -> list[tuple[Decoded, int]]:
        event = change(first, last, symbol)
        return self.known.seen(event, self.continuity.check(event, T)[0], self.now_s)

    def asks(self, after_s: float = 0.0) -> list[Fetch]:
        self.now_s += after_s
        return self.known.fetches(self.now_s)

    def answer(self, last: int | None, wait_s: float = 0.0) -> list[tuple[Decoded, int]]:
        return self.known.answered(None if last is None else answer(last), wait_s, T + 7, self.now_s)


BOOK = [Fetch("book", "btcusdt")]


def test_a_book_is_asked_for_with_its_first_change_once_and_again_after_a_hole() -> None:
    feed = Feed(snapshots())
    assert feed.asks(60) == []
    feed.change(101, 110)
    assert feed.asks() == BOOK
    assert feed.asks(60) == [], "the answer is on its way"
    feed.change(111, 120)
    assert feed.answer(115) == [(answer(115), T + 7)]
    feed.change(121, 130)
    assert feed.asks(60) == []
    feed.change(141, 150)
    assert feed.asks() == BOOK
    assert feed.answer(150) == [(answer(150), T + 7)]
    assert feed.asks(60) == []


@pytest.mark.parametrize(("last", "joins"), [(99, False), (100, True), (109, True), (110, True)])
def test_an_answer_joins_where_the_changes_that_came_lead_through_it(last: int, joins: bool) -> None:
    feed = Feed(snapshots())
    feed.change(101, 110)
    feed.asks()
    assert feed.answer(last) == ([(answer(last), T + 7)] if joins else [])
    assert feed.asks(ASK_EVERY_S) == ([] if joins else BOOK)


def test_an_answer_ahead_of_the_changes_joins_when_they_reach_it() -> None:
    feed = Feed(snapshots())
    feed.change(101, 110)
    feed.asks()
    assert feed.answer(115) == []
    assert feed.asks(ASK_EVERY_S) == [], "the changes are waited for"
    assert feed.change(111, 114) == []
    assert feed.change(115, 119) == [(answer(115), T + 7)]
    assert feed.change(120, 121) == []


def test_an_answer_that_the_changes_never_reach_or_that_a_hole_parts_from_them_is_asked_for_again() -> None:
    feed = Feed(snapshots())
    feed.change(101, 110)
    feed.asks()
    feed.answer(1_000_000)
    assert feed.asks(AHEAD_S) == BOOK
    feed.answer(112)
    feed.change(112, 115)  # 111 is missing
    assert feed.asks(ASK_EVERY_S) == BOOK
    assert feed.answer(110) == []


def test_a_hole_while_the_answer_is_on_its_way_makes_it_too_old() -> None:
    feed = Feed(snapshots())
    feed.change(101, 110)
    feed.asks()
    feed.change(131, 140)
    assert feed.answer(112) == []
    assert feed.asks(ASK_EVERY_S) == BOOK
    assert feed.answer(130) == [(answer(130), T + 7)]


def test_books_take_turns_one_a_second_and_a_venue_that_says_wait_is_asked_by_none() -> None:
    symbols = ("a1", "b2", "c3")
    feed = Feed(snapshots(symbols))
    for symbol in symbols:
        feed.change(101, 110, symbol)
        feed.now_s += 0.01
    asked = []
    for _ in symbols:
        asked += feed.asks()
        assert feed.asks(ASK_EVERY_S) == []
        feed.answer(None)
    assert [fetch.symbol for fetch in asked] == list(symbols)
    (again,) = feed.asks()
    assert again.symbol == "a1"
    feed.answer(None, wait_s=30)
    assert feed.asks(29) == []
    assert [fetch.symbol for fetch in feed.asks(1)] == ["a1"]


def test_an_answer_of_no_use_is_asked_for_less_and_less_often() -> None:
    feed = Feed(snapshots())
    feed.change(101, 110)
    waits, last_s = [], feed.now_s
    for _ in range(9):
        while not feed.asks(0.25):
            pass
        waits.append(feed.now_s - last_s)
        last_s = feed.now_s
        feed.answer(None)
    assert waits[1:] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_books_whose_channel_brings_them_whole_and_trades_are_never_asked_for() -> None:
    for known in (snapshots(channel="depth20@100ms"), snapshots(feeds=(TRADE,))):
        feed = Feed(known)
        feed.change(101, 110)
        assert "btcusdt" not in known
        assert feed.asks() == []
    for name, exchange in EXCHANGES.items():
        subscription = Subscription(("x",), (ORDERBOOK,), exchange.orderbook_channels[0], "trade")
        assert exchange.book_path(subscription, "x") is None, name


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(-8, 8)), min_size=1, max_size=40))
def test_whatever_comes_an_answer_is_taken_only_where_the_changes_since_the_last_hole_lead_through_it(
    steps: list[tuple[int, bool, int]],
) -> None:
    feed, last, chain = Feed(snapshots()), 100, (0, 0)
    for size, hole, offset in steps:
        first = last + (2 if hole else 1)
        last = first + size - 1
        chain = (first - 1, last) if hole or chain == (0, 0) else (chain[0], last)
        taken = feed.change(first, last)
        if feed.asks(ASK_EVERY_S):
            taken += feed.answer(max(1, last + offset))
        assert all(chain[0] <= (book.last or 0) <= chain[1] for book, _ in taken)
