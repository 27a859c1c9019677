"""Which connection carries which market."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.config import MarketGroup, Settings
from app.exchanges import EXCHANGES
from app.exchanges.base import Subscription
from app.model import ORDERBOOK, TRADE
from app.pipeline.plan import Changes, Stream, changes, slots, streams
from tests.support.rig import Rig

BOTH = (ORDERBOOK, TRADE)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

symbol_sets = st.lists(st.from_regex(r"[A-Z]{2,6}-USDT", fullmatch=True), unique=True, min_size=1, max_size=60)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Rig(tmp_path_factory.mktemp("plan"), "redis://127.0.0.1:1/0").settings


def planned(base: Settings, *groups: MarketGroup, connections: int | None = None) -> dict[str, Stream]:
    exchanges = {name: replace(venue, connections=connections) for name, venue in base.exchanges.items()}
    found = streams(replace(base, markets=groups, exchanges=exchanges), EXCHANGES)
    assert [stream.name for stream in found] == sorted({stream.name for stream in found})
    return {stream.name: stream for stream in found}


def homes(plan: dict[str, Stream]) -> dict[tuple[str, tuple[str, ...], str], str]:
    """The stream of each market of a URL and feeds."""
    return {
        (s.ws_url, s.subscription.feeds, symbol): s.name for s in plan.values() for symbol in s.subscription.symbols
    }


def needed(symbols: list[str], limit: int) -> int:
    """The smallest power of two of connections that keeps each within `limit`."""
    count = 1
    while max(sum(zlib.crc32(s.encode()) % count == slot for s in symbols) for slot in range(count)) > limit:
        count *= 2
    return count


def test_a_stream_says_where_it_goes_and_what_it_carries(base: Settings) -> None:
    plan = planned(base, MarketGroup("okx", ("BTC-USDT", "ETH-USDT"), (TRADE, ORDERBOOK), data_timeout_secs=90.0))
    assert plan == {
        "okx-0-orderbook.trade": Stream(
            "okx-0-orderbook.trade",
            "okx",
            "wss://ws.okx.com:8443/ws/v5/public",
            "https://www.okx.com",
            None,
            Subscription(("BTC-USDT", "ETH-USDT"), BOTH, "books", "trades"),
            {"BTC-USDT": 90.0, "ETH-USDT": 90.0},
        )
    }


def test_without_a_timeout_of_its_own_a_market_has_the_general_one(base: Settings) -> None:
    (stream,) = planned(base, MarketGroup("okx", ("BTC-USDT",), BOTH)).values()
    assert stream.data_timeout_s == {"BTC-USDT": base.websocket.message_timeout_secs}


def test_the_plan_is_the_same_whoever_makes_it_and_in_whatever_order(base: Settings) -> None:
    groups = [MarketGroup("okx", ("BTC-USDT",), BOTH), MarketGroup("upbit", ("KRW-BTC",), (TRADE,))]
    assert planned(base, *groups) == planned(base, *reversed(groups))


@given(symbol_sets, st.from_regex(r"[A-Z]{2,6}-USDT", fullmatch=True), st.integers(1, 12))
@hypothesis_settings(deadline=None)
def test_adding_or_removing_a_market_moves_no_other_while_the_connections_are_given(
    base: Settings, symbols: list[str], added: str, connections: int
) -> None:
    before = homes(planned(base, MarketGroup("okx", tuple(symbols), BOTH), connections=connections))
    after = homes(planned(base, MarketGroup("okx", (*symbols, added), BOTH), connections=connections))
    assert {market: after[market] for market in before} == before


@given(symbol_sets, st.from_regex(r"[A-Z]{2,6}-USDT", fullmatch=True), st.integers(3, 30))
@hypothesis_settings(deadline=None)
def test_a_market_moves_only_when_the_number_of_connections_changes(symbols: list[str], added: str, limit: int) -> None:
    before, after = slots(symbols, None, limit), slots([*symbols, added], None, limit)
    if needed(symbols, limit) == needed([*symbols, added] if added not in symbols else symbols, limit):
        assert {s: slot for slot, held in after.items() for s in held if s != added or s in symbols} == {
            s: slot for slot, held in before.items() for s in held
        }
    else:
        assert max(map(len, after.values())) <= limit


@given(symbol_sets, st.integers(1, 30))
@hypothesis_settings(deadline=None)
def test_every_symbol_is_carried_once_within_the_limit_in_order(symbols: list[str], limit: int) -> None:
    found = slots(symbols + symbols[:3], None, limit)
    assert sorted(symbol for held in found.values() for symbol in held) == sorted(symbols)
    assert all(len(held) <= limit for held in found.values())
    assert all(list(held) == sorted(held) for held in found.values())
    assert max(found) < needed(symbols, limit)


@pytest.mark.parametrize("name", EXCHANGES)
def test_no_connection_carries_more_than_its_venue_allows(base: Settings, name: str) -> None:
    limit = EXCHANGES[name].limits.markets_per_connection
    symbols = tuple(f"COIN{n}" for n in range(4 * limit))
    plan = planned(base, MarketGroup(name, symbols, BOTH))
    carried = [s for stream in plan.values() for s in stream.subscription.symbols]
    assert sorted(carried) == sorted(symbols)
    assert max(len(stream.subscription.symbols) for stream in plan.values()) <= limit


def test_names_are_safe_parts_of_paths_and_keys_and_differ(base: Settings) -> None:
    symbols = tuple(f"COIN{n}" for n in range(200))
    groups = [
        MarketGroup(name, symbols, feeds, base_url=url, data_timeout_secs=timeout_s)
        for name in EXCHANGES
        for feeds in (BOTH, (TRADE,), (ORDERBOOK,))
        for url in (None, "wss://elsewhere.example/a/../b?c=d e")
        for timeout_s in (None, 90.5)
    ]
    plan = planned(base, *groups)
    assert all(NAME.fullmatch(name) and ".." not in name for name in plan)
    carried = sum(len(stream.subscription.symbols) for stream in plan.values())
    assert carried == len(groups) * len(symbols)


def test_groups_that_agree_share_a_connection(base: Settings) -> None:
    plan = planned(base, MarketGroup("okx", ("BTC-USDT",), BOTH), MarketGroup("okx", ("ETH-USDT",), BOTH))
    assert {name: s.subscription.symbols for name, s in plan.items()} == {
        "okx-0-orderbook.trade": ("BTC-USDT", "ETH-USDT")
    }


@given(symbol_sets, st.from_regex(r"[A-Z]{2,6}-USDT", fullmatch=True))
@hypothesis_settings(deadline=None)
def test_a_market_more_in_one_group_moves_none_of_another_group_of_the_same_exchange(
    base: Settings, symbols: list[str], added: str
) -> None:
    def plan(*first: str) -> dict[tuple[str, tuple[str, ...], str], str]:
        other = MarketGroup("okx", ("BTC-USD", "ETH-USD"), BOTH, base_url="wss://other.example")
        return homes(planned(base, MarketGroup("okx", first, BOTH), other, connections=4))

    before, after = plan(*symbols), plan(*symbols, added)
    assert {market: after[market] for market in before} == before


@given(symbol_sets, st.data(), st.sampled_from([None, 1, 2, 3, 8]))
@hypothesis_settings(deadline=None, max_examples=50)
def test_a_market_more_or_less_changes_the_one_stream_of_its_exchange_whose_slot_it_hashes_to(
    base: Settings, symbols: list[str], data: st.DataObject, connections: int | None
) -> None:
    """Without a number of connections: unless the venue's limit is passed, far above what is drawn here."""

    def plan(*carried: str) -> dict[str, Stream]:
        others = [MarketGroup("okx", ("BTC-USD", "ETH-USD"), (TRADE,)), MarketGroup("upbit", tuple(symbols), BOTH)]
        return planned(
            base, *([MarketGroup("okx", carried, BOTH)] if carried else []), *others, connections=connections
        )

    one = data.draw(st.sampled_from(symbols))
    rest = [symbol for symbol in symbols if symbol != one]
    name = f"okx-{zlib.crc32(one.encode()) % (connections or 1)}-orderbook.trade"
    shared = any(zlib.crc32(symbol.encode()) % (connections or 1) == int(name[4]) for symbol in rest)
    smaller, larger = plan(*rest), plan(*data.draw(st.permutations(symbols)))
    assert changes(smaller, larger) == (Changes((), (), (name,)) if shared else Changes((name,), (), ()))
    assert changes(larger, smaller) == (Changes((), (), (name,)) if shared else Changes((), (name,), ()))


def test_stream_names_of_a_settings_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "redis://127.0.0.1:1/0")
    assert [stream.name for stream in streams(rig.settings, EXCHANGES)] == [
        "binance-0-orderbook.trade",
        "bybit-0-orderbook.trade",
        "coinbase-0-orderbook.trade",
        "okx-0-orderbook.trade",
        "upbit-0-orderbook.trade",
    ]
