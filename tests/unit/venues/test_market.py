from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.venues.instruments import Instrument, listing
from app.venues.market import ASK, BID, Change, Market, Side, Step, Window
from app.venues.upbit import sequential_id

INSTRUMENTS = [*listing("{base}{quote}", "USDT", 6)][:6] + [*listing("{quote}-{base}", "KRW", 8)][:6]
NOW_US = 1_790_000_000_000_000

markets = st.builds(
    lambda instrument, seed, levels, executions: Market(
        instrument, Random(seed), levels, 1_000, NOW_US, max_count=executions
    ),
    st.sampled_from(INSTRUMENTS),
    st.integers(0, 10**9),
    st.integers(20, 60),
    st.integers(1, 4),
)
courses = st.lists(st.integers(0, 5), min_size=1, max_size=40)


def book(market: Market) -> dict[tuple[str, int], int]:
    """(side, price) -> size."""
    bids = {(BID, price): size for price, size in market.bids.top(10**6)}
    return bids | {(ASK, price): size for price, size in market.asks.top(10**6)}


@given(markets, courses)
@settings(max_examples=60, deadline=None)
def test_a_book_is_never_crossed_nor_thin_and_its_figures_are_proper(market: Market, course: list[int]) -> None:
    for trades in course:
        market.step(trades, NOW_US)
        assert market.bids.best()[0] < market.asks.best()[0]
        for (_, price), size in book(market).items():
            assert size > 0 and price > 0 and price % market.instrument.tick == 0
        assert all(len(side.keys) >= market.levels for side in (market.bids, market.asks))


@given(markets, courses)
@settings(max_examples=60, deadline=None)
def test_a_trade_takes_from_the_touch_of_its_moment(market: Market, course: list[int]) -> None:
    for trades in course:
        standing = book(market)
        for trade in market.step(trades, NOW_US).trades:
            side = ASK if trade.taker_buys else BID
            prices = [price for (name, price) in standing if name == side]
            assert trade.price == (min(prices) if trade.taker_buys else max(prices))
            assert 0 < trade.size <= standing[side, trade.price]
            standing[side, trade.price] -= trade.size
            if not standing[side, trade.price]:
                del standing[side, trade.price]


@given(markets, courses)
@settings(max_examples=60, deadline=None)
def test_the_changes_of_a_step_turn_the_book_before_into_the_book_after(market: Market, course: list[int]) -> None:
    for trades in course:
        before = book(market)
        for change in market.step(trades, NOW_US).changes:
            assert before.pop((change.side, change.price), 0) == change.before != change.size
            if change.size:
                before[change.side, change.price] = change.size
        assert before == book(market)


@given(markets, courses, st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_a_window_moves_exactly_as_the_best_levels_do(market: Market, course: list[int], levels: int) -> None:
    windows = {ASK: Window(market.asks, levels), BID: Window(market.bids, levels)}
    shown = {name: dict(window.shown()) for name, window in windows.items()}
    for trades in course:
        step = market.step(trades, NOW_US)
        for name, window in windows.items():
            for price, size in window.move([change for change in step.changes if change.side == name]):
                assert shown[name].pop(price, 0) != size, "only what changed is told"
                if size:
                    shown[name][price] = size
            assert shown[name] == dict(window.shown())


@given(markets, courses)
@settings(max_examples=30, deadline=None)
def test_ids_and_counters_only_grow(market: Market, course: list[int]) -> None:
    for trades in course:
        last, update_id, sequence = market.last_trade, market.update_id, market.sequence
        step = market.step(trades, NOW_US)
        for trade in step.trades:
            assert (trade.id - last.id, trade.sequence > last.sequence) == (trade.executions, True)
            last = trade
        assert market.update_id >= update_id + bool(step.changes)
        assert market.sequence > sequence


def test_the_seed_decides_the_course() -> None:
    def course(seed: int) -> list[Step]:
        market = Market(INSTRUMENTS[0], Random(seed), 50, 1_000, NOW_US)
        return [market.step(2, NOW_US) for _ in range(50)]

    assert course(5) == course(5) != course(6)


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda i: i.symbol)
def test_a_long_walk_stays_near_its_price(instrument: Instrument) -> None:
    market = Market(instrument, Random(1), 60, 1_000, NOW_US)
    for _ in range(3_000):
        market.step(1, NOW_US)
    assert 0.7 < market.bids.best()[0] / instrument.price < 1.4


def test_a_level_that_comes_up_from_below_is_told_though_it_did_not_change() -> None:
    side = Side(-1)
    for price in (100, 99, 98):
        side.put(price, 7)
    window = Window(side, 2)
    side.put(100, 0)
    assert window.move([Change(BID, 100, 0, 7)]) == [(100, 0), (98, 7)]
    side.put(101, 5)
    assert window.move([Change(BID, 101, 5, 0)]) == [(101, 5), (98, 0)]


def test_time_made_ids_are_17_digits_and_unique_within_a_millisecond() -> None:
    first = sequential_id(0, 1, 1_790_000_000_123_456)
    assert first == 17_900_000_001_230_000
    assert sequential_id(first, 1, 1_790_000_000_123_999) == 17_900_000_001_230_001
