"""One budget per venue for all workers: a burst, then evenly, and nobody while the venue says to stay away."""

from __future__ import annotations

import pytest

from app.buffer.budget import Budget
from app.buffer.client import connect
from app.errors import BufferUnavailable
from app.exchanges.base import Pace
from app.launch.redis_server import free_port
from tests.support.redis_process import RedisProcess


def test_workers_share_a_burst_and_then_wait_their_turn(redis_server: RedisProcess) -> None:
    one = Budget(connect(redis_server.url, 1), "budget-burst")
    other = Budget(connect(redis_server.url, 1), "budget-burst")
    pace = Pace(per_s=0.01, burst=3)
    assert [one.take("okx", "connect", pace), other.take("okx", "connect", pace), one.take("okx", "connect", pace)] == [
        0.0, 0.0, 0.0,
    ]  # fmt: skip
    wait_s = other.take("okx", "connect", pace)
    assert 95 < wait_s <= 100
    assert one.take("okx", "connect", pace) <= wait_s, "asking costs nothing"
    assert one.take("okx", "rest", pace) == 0.0, "another kind has its own"
    assert one.take("bybit", "connect", pace) == 0.0, "another venue has its own"


def test_a_venue_that_says_stay_away_is_left_alone_by_all(redis_server: RedisProcess) -> None:
    one = Budget(connect(redis_server.url, 1), "budget-block")
    other = Budget(connect(redis_server.url, 1), "budget-block")
    one.block("binance", 120)
    assert 119 < other.take("binance", "connect", Pace(10, 10)) <= 120
    assert 119 < other.take("binance", "rest", Pace(10, 10)) <= 120
    assert other.take("okx", "rest", Pace(10, 10)) == 0.0


def test_without_redis_it_says_so() -> None:
    with pytest.raises(BufferUnavailable):
        Budget(connect(f"redis://127.0.0.1:{free_port()}/0", 0.2), "nobody").take("okx", "connect", Pace(1, 1))
