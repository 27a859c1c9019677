"""Sums of the tally as families that Prometheus reads, with everything that the plan knows at 0 from the start."""

from __future__ import annotations

from itertools import product

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from app.metrics import DECLARED, VALUES, Series
from app.pipeline.plan import Stream
from app.web.counted import families
from tests.support.counting import Samples, samples
from tests.support.rig import Rig


def shown(sums: dict[Series, float], streams: dict[str, Stream]) -> Samples:
    class Collected:
        def collect(self) -> list[Metric]:
            return list(families(sums, streams))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return samples(generate_latest(registry).decode())


def plan(rig: Rig) -> dict[str, Stream]:
    rig.write({"okx": ["BTC-USDT"], "bybit": ["BTCUSDT", "ETHUSDT"]})
    return rig.wiring().streams


def labels(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(values.items()))


def test_every_set_of_labels_of_the_plan_is_0_before_anything_was_counted(rig: Rig) -> None:
    found = shown({}, plan(rig))
    assert set(found.values()) == {0}
    markets = [("okx", "BTC-USDT"), ("bybit", "BTCUSDT"), ("bybit", "ETHUSDT")]
    feeds = [labels(exchange=e, symbol=s, data_type=f) for (e, s), f in product(markets, ("orderbook", "trade"))]
    undecoded = [labels(exchange=e, symbol="?", data_type="?") for e in ("okx", "bybit")]
    of = {name: {pairs for sample, pairs in found if sample == f"collector_{name}"} for name in DECLARED}
    assert of["messages_received_total"] == {*feeds, *undecoded}
    assert of["messages_stored_total"] == set(feeds)
    assert of["websocket_reconnects_total"] == {labels(exchange=e, symbol=s) for e, s in markets}
    assert of["messages_dropped_total"] == {()}
    stages = VALUES["archive_failures_total"]["stage"]
    assert of["archive_failures_total"] == {labels(stage=stage) for stage in stages}
    reasons = VALUES["connection_closes_total"]["reason"]
    assert of["connection_closes_total"] == {
        labels(exchange=e, reason=r) for e, r in product(("okx", "bybit"), reasons)
    }
    bounds = {dict(pairs)["le"] for sample, pairs in found if sample == "collector_db_write_seconds_bucket"}
    assert bounds == {*(f"{float(bound)}" for bound in DECLARED["db_write_seconds"].buckets), "+Inf"}


def test_sums_are_shown_those_of_markets_that_left_the_plan_too(rig: Rig) -> None:
    left = labels(exchange="upbit", symbol="KRW-BTC", data_type="trade")
    here = labels(exchange="okx", symbol="BTC-USDT", data_type="trade")
    sums: dict[Series, float] = {
        ("collector_messages_received_total", left): 7.0,
        ("collector_messages_received_total", here): 5.0,
        ("collector_sequence_gap_size_count", left): 1.0,
        ("collector_sequence_gap_size_bucket", tuple(sorted((*left, ("le", "2.0"))))): 1.0,
        ("collector_of_another_version_total", ()): 1.0,
    }
    found = shown(sums, plan(rig))
    assert {key: value for key, value in found.items() if value} == {
        key: value for key, value in sums.items() if key[0] != "collector_of_another_version_total"
    }


def test_buckets_come_in_the_order_of_their_bounds(rig: Rig) -> None:
    (latency,) = [m for m in families({}, plan(rig)) if m.name == "collector_latency_exchange_to_collector_ms"]
    order = [s.labels["le"] for s in latency.samples if s.labels["exchange"] == "okx" and s.labels.get("le")]
    half = len(order) // 2
    assert order[:half] == order[half:]
    assert [float(bound) for bound in order[:half]] == sorted(float(bound) for bound in order[:half])
