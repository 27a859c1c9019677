"""However a venue cuts, orders and overlaps its pages: a walk brings exactly the trades that are missing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exchanges.history import HISTORIES
from app.exchanges.history.base import Ask, Between, Page, Past
from app.pipeline.found import BATCH_EVENTS, consecutive, inside
from tests.support.past import (
    NOW_US,
    SERVED,
    BinanceServed,
    Served,
    at_ms,
)

#: Venue and source -> its symbol.
COUNTED = {
    ("binance", None): "btcusdt",
    ("coinbase", None): "BTC-USD",
    ("coinbase", "advanced"): "BTC-USD",
    ("okx", None): "BTC-USDT",
}


def walk(venue: tuple[str, str | None], served: Served, older: int, newer: int) -> tuple[list[Past], Page]:
    """All trades that the walk from `older` to `newer` brings, and its last page."""
    history = HISTORIES[venue]
    wanted = Between(COUNTED[venue], str(older), str(newer), at_ms(older) * 1000, at_ms(newer) * 1000)
    ask: Ask | None = history.first(wanted, NOW_US)
    found: list[Past] = []
    while ask is not None:
        page = history.read(wanted, ask, *served.answer(ask), NOW_US)
        assert isinstance(page, Page)
        found += inside(page.trades, (older + 1, newer - 1))
        ask = None if page.reached else page.next
    return found, page


@pytest.mark.parametrize("venue", COUNTED, ids=str)
@settings(max_examples=40, deadline=None)
@given(
    hole=st.integers(10, 60).flatmap(lambda older: st.tuples(st.just(older), st.integers(older + 2, older + 70))),
    lacking=st.sets(st.integers(0, 130), max_size=6),
    page=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_a_walk_brings_exactly_the_missing_trades_that_the_venue_has(
    venue: tuple[str, str | None], hole: tuple[int, int], lacking: set[int], page: int, seed: int
) -> None:
    older, newer = hole
    ids = [i for i in range(140) if i not in lacking or not older < i < newer]
    found, last = walk(venue, SERVED[venue](ids, page, seed), older, newer)
    assert {trade.first for trade in found} == {i for i in ids if older < i < newer}
    assert all(trade.sequence_id == str(trade.first) and trade.first == trade.last for trade in found)
    assert {trade.exchange_us for trade in found} == {at_ms(trade.first) * 1000 for trade in found}
    assert all(isinstance(json.loads(trade.data), dict) for trade in found)
    assert last.reached or last.words


@settings(max_examples=40, deadline=None)
@given(older=st.integers(4, 60), width=st.integers(2, 60), page=st.integers(1, 30), seed=st.integers(0, 99))
def test_where_binance_has_only_aggregates_those_wholly_inside_are_taken(
    older: int, width: int, page: int, seed: int
) -> None:
    newer = older + width
    found, _ = walk(("binance", None), BinanceServed(list(range(140)), page, seed, single=False), older, newer)
    wanted = [(2 * a, 2 * a + 1) for a in range(70) if older < 2 * a and 2 * a + 1 < newer]
    assert sorted({(trade.first, trade.last) for trade in found}) == wanted
    assert {trade.sequence_id for trade in found} == {f"{first}-{last}" for first, last in wanted}


@pytest.mark.parametrize("venue", COUNTED, ids=str)
def test_a_venue_that_has_nothing_ends_the_walk_with_words(venue: tuple[str, str | None]) -> None:
    found, last = walk(venue, SERVED[venue]([], 10, 0), 10, 20)
    assert (found, last.reached) == ([], False)
    assert last.words


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 3000), max_size=1500))
def test_fetched_trades_are_cut_into_whole_runs_of_ids(ids: set[int]) -> None:
    trades = [Past(str(i), None, "{}", i, i) for i in sorted(ids)]
    runs = list(consecutive(trades))
    assert [trade for run in runs for trade in run] == trades
    for run in runs:
        assert len(run) <= BATCH_EVENTS
        assert [trade.first for trade in run] == list(range(run[0].first, run[-1].last + 1))
