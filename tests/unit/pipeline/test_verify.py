"""Which objects are asked for."""

from __future__ import annotations

import pytest

from app.objects.layout import manifest_key, object_key
from app.pipeline.verify import Scope

HOUR_MS = 3_600_000
#: 2026-03-01 14:00 UTC.
T0_MS = 1_772_373_600_000


def key(exchange: str, symbol: str, hour: int, server: str | None = None, suffix: int = 0) -> str:
    return object_key(exchange, symbol, "trade", (T0_MS + hour * HOUR_MS) * 1000, server, suffix)


KEYS = [
    key("binance", "btcusdt", 0),
    key("binance", "btcusdt", 1, suffix=2),
    key("binance", "btcusdt2", 1),
    key("okx", "BTC-USDT", 1, server="tokyo-1"),
    key("okx", "BTC-USDT", 2),
]


@pytest.mark.parametrize(
    ("scope", "held"),
    [
        (Scope(), [0, 1, 2, 3, 4]),
        (Scope("binance/btcusdt/"), [0, 1]),
        (Scope(markets=["binance/btcusdt"]), [0, 1]),
        (Scope(markets=["binance/btcusdt2", "okx/BTC-USDT"]), [2, 3, 4]),
        (Scope(since_ms=T0_MS + HOUR_MS), [1, 2, 3, 4]),
        (Scope(until_ms=T0_MS + HOUR_MS), [0]),
        (Scope(since_ms=T0_MS + 1, until_ms=T0_MS + 2 * HOUR_MS), [1, 2, 3]),
        (Scope("okx/", markets=["binance/btcusdt"]), []),
        (Scope("okx/", since_ms=T0_MS + 2 * HOUR_MS), [4]),
    ],
)
def test_a_scope_holds_objects_and_their_manifests(scope: Scope, held: list[int]) -> None:
    assert [n for n, key in enumerate(KEYS) if scope.holds(key)] == held
    assert [n for n, key in enumerate(KEYS) if scope.holds(manifest_key(key))] == held


@pytest.mark.parametrize("stranger", ["readme.txt", "binance/btcusdt/trade/x.parquet", "binance/btcusdt/_1.json"])
def test_what_is_no_object_is_only_held_where_neither_market_nor_hour_is_asked_for(stranger: str) -> None:
    assert Scope().holds(stranger)
    assert not Scope(markets=["binance/btcusdt"]).holds(stranger)
    assert not Scope(since_ms=0).holds(stranger)
