"""How late events come, counted in one pass."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from app import metrics
from app.metrics import LATENCY_BUCKETS_MS
from app.model import Event
from app.pipeline.latency import OFFSET_SPAN_S, Latency

NOW_US = 1_772_323_200_000_000


def event(late_us: int | None, symbol: str = "BTC-USDT", feed: str = "trade") -> Event:
    return Event(symbol, feed, 1, "1", NOW_US, None if late_us is None else NOW_US - late_us, "{}")


def seen(exchange: str) -> dict[tuple[str, str, str], float]:
    """Name, symbol and bound -> what the metrics of this exchange hold."""
    return {
        (name.removeprefix("collector_latency_"), dict(labels)["symbol"], dict(labels).get("le", "")): value
        for (name, labels), value in metrics.counted().items()
        if "_latency_" in name and dict(labels)["exchange"] == exchange
    }


def test_an_event_falls_into_the_bucket_that_its_bound_closes() -> None:
    latency = Latency("one")
    latency.add([event(0), event(1_000), event(1_001), event(5_000_000), event(5_000_001), event(None), event(-1)])
    assert seen("one") == {}, "nothing is told before it is asked for"
    latency.report()
    found = seen("one")
    assert [found["exchange_to_collector_ms_bucket", "BTC-USDT", le] for le in ("1.0", "5.0", "5000.0", "+Inf")] == [
        2, 3, 4, 5,
    ]  # fmt: skip
    assert found["exchange_to_collector_ms_count", "BTC-USDT", ""] == 5
    assert found["exchange_to_collector_ms_sum", "BTC-USDT", ""] == (1_000 + 1_001 + 5_000_000 + 5_000_001) / 1000
    assert found["negative_total", "BTC-USDT", ""] == 1
    latency.report()
    assert seen("one") == found, "what was told is not told again"


@given(st.lists(st.integers(-(10**7), 10**7), max_size=60))
def test_every_event_with_a_time_is_counted_once(lates: list[int]) -> None:
    before = seen("any")
    latency = Latency("any")
    latency.add([event(late) for late in lates])
    latency.report()
    after = seen("any")
    gained = {key: value - before.get(key, 0.0) for key, value in after.items()}
    kept = [late for late in lates if late >= 0]
    if gained:
        assert gained["exchange_to_collector_ms_count", "BTC-USDT", ""] == len(kept)
        assert gained.get(("negative_total", "BTC-USDT", ""), 0) == len(lates) - len(kept)
        for position, bound in enumerate(LATENCY_BUCKETS_MS):
            below = sum(bisect_left(LATENCY_BUCKETS_MS, late / 1000) <= position for late in kept)
            assert gained["exchange_to_collector_ms_bucket", "BTC-USDT", f"{float(bound)}"] == below
    assert latency.offset_us(0.0) == min(lates, default=None)


def test_the_smallest_difference_is_that_of_the_last_two_spans() -> None:
    latency = Latency("two")
    assert latency.offset_us(0.0) is None
    latency.add([event(700), event(-300, feed="orderbook")])
    assert latency.offset_us(1.0) == -300
    assert latency.offset_us(OFFSET_SPAN_S) == -300
    latency.add([event(400)])
    assert latency.offset_us(OFFSET_SPAN_S + 1) == -300
    assert latency.offset_us(2 * OFFSET_SPAN_S) == 400
    assert latency.offset_us(3 * OFFSET_SPAN_S) is None
