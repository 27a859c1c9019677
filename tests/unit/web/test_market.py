"""Percentiles: of histograms as they are counted, and of what was just seen."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model import Market
from app.web.live import LATENCY_US, _percentiles
from app.web.market import LATENCY, latency, quantile
from app.web.overview import Rate

INF = float("inf")


@pytest.mark.parametrize(
    ("buckets", "part", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0, INF: 0}, 0.5, None),
        ({1.0: 0, 5.0: 10, INF: 10}, 0.5, 3.0),
        ({10.0: 50, 100.0: 100, INF: 100}, 0.5, 10.0),
        ({10.0: 50, 100.0: 100, INF: 100}, 0.99, 98.2),
        ({1.0: 0, 5000.0: 0, INF: 7}, 0.5, 5000.0),
    ],
)
def test_a_quantile_lies_where_a_histogram_puts_it(
    buckets: dict[float, float], part: float, expected: float | None
) -> None:
    found = quantile(buckets, part)
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.floats(0.01, 1))
def test_a_quantile_lies_between_the_bounds_and_grows_with_its_part(counts: list[int], part: float) -> None:
    bounds = [10.0 * (n + 1) for n in range(len(counts))]
    buckets = {bound: float(sum(counts[: n + 1])) for n, bound in enumerate(bounds)} | {INF: float(sum(counts))}
    found, most = quantile(buckets, part), quantile(buckets, 1.0)
    if not sum(counts):
        assert found is None
    else:
        assert found is not None and most is not None and 0 <= found <= most <= bounds[-1]


def test_only_the_markets_own_histogram_is_read() -> None:
    def series(symbol: str, feed: str, le: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        return LATENCY, (("data_type", feed), ("exchange", "okx"), ("le", le), ("symbol", symbol))

    sums = {
        series("BTC-USDT", "trade", "10.0"): 100.0, series("BTC-USDT", "trade", "+Inf"): 100.0,
        series("ETH-USDT", "trade", "10.0"): 0.0, series("ETH-USDT", "trade", "+Inf"): 9.0,
        ("collector_messages_received_total", (("exchange", "okx"),)): 5.0,
    }  # fmt: skip
    assert latency(sums, Market("okx", "BTC-USDT")) == {"trade": {"p50_ms": 5.0, "p99_ms": pytest.approx(9.9)}}
    assert latency(sums, Market("bybit", "BTC-USDT")) == {}


def test_percentiles_are_of_the_last_minute() -> None:
    now_us = 10 * LATENCY_US
    seen = deque([(now_us - LATENCY_US - 1, 9999.0), *((now_us - n, float(n)) for n in range(100))])
    assert _percentiles(seen, now_us) == {"p50_ms": 50.0, "p99_ms": 99.0, "events": 100}
    assert _percentiles(deque(), now_us) == {"p50_ms": None, "p99_ms": None, "events": 0}


def test_a_rate_is_the_growth_over_its_time_and_begins_anew_after_a_fall() -> None:
    rate = Rate(10)
    assert rate(0, 100) is None
    assert [rate(5, 150), rate(10, 200), rate(20, 200)] == [10, 10, 0]
    assert rate(21, 3) is None
    assert rate(22, 5) == 2
