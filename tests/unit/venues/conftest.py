"""A book set by hand, so that the exact text of a frame can be written down."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.venues.dialect import Venue
from app.venues.market import ASK, Market, Side, Step, Trade

#: 2026-09-21T14:13:20.123456Z
NOW_US = 1_790_000_000_123_456
Levels = list[tuple[int, int]]
Quote = Callable[[Venue, str, Levels, Levels], Market]
Apply = Callable[[Market, Step], Step]


@pytest.fixture
def now_us() -> int:
    return NOW_US


@pytest.fixture
def quote() -> Quote:
    """Make (venue, symbol, bids, asks) the venue's market: update id 700, sequence 900, last trade 41."""

    def make(venue: Venue, symbol: str, bids: Levels, asks: Levels) -> Market:
        market = venue.market(symbol, NOW_US)
        market.bids, market.asks = Side(-1), Side(1)
        for side, levels in ((market.bids, bids), (market.asks, asks)):
            for price, size in levels:
                side.put(price, size)
        market.update_id, market.sequence, market.trade_id = 700, 900, 41
        market.last_trade = Trade(41, 1, asks[0][0], 500, True, NOW_US - 2_000_000, 890)
        return market

    return make


@pytest.fixture
def apply() -> Apply:
    """Make a step's changes true in the market; 3 updates and 10 of the sequence pass."""

    def make(market: Market, step: Step) -> Step:
        for change in step.changes:
            (market.asks if change.side == ASK else market.bids).put(change.price, change.size)
        market.update_id += 3
        market.sequence += 10
        return step

    return make
