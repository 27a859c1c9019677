"""Exchanges and markets, judged with the words of an exchange that is made up here."""

from __future__ import annotations

import re
from typing import Any

from app.config import ExchangeSettings, MarketGroup
from app.errors import InvalidSymbol
from app.exchanges.base import Decoder, Exchange, Limits, Request, Subscription
from app.settings_markets import NO_MARKETS, exchange_settings, feed_types, market_groups
from app.settings_reading import Reading
from app.settings_sources import Sources


class Venue(Exchange):
    """Spells symbols in lower case, and lets a slash through, which no path may hold."""

    name = "venue"
    ws_url, rest_url = "wss://venue.test/ws", "https://venue.test"
    orderbook_channels, trade_channels = ("book", "book5"), ("trade",)
    limits = Limits(markets_per_connection=1, messages_per_s=1, idle_timeout_s=1)
    heartbeat = None
    symbols_path = "/symbols"
    symbol_example = "letters and digits"

    def canonical(self, symbol: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9/-]+", symbol):
            raise InvalidSymbol(self.name, symbol, "letters and digits only")
        return symbol.lower()

    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        raise NotImplementedError

    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        raise NotImplementedError

    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        raise NotImplementedError

    def decoder(self, subscription: Subscription) -> Decoder:
        raise NotImplementedError

    def listed(self, body: bytes) -> frozenset[str]:
        raise NotImplementedError


VENUES = {"venue": Venue()}
BOTH = ("orderbook", "trade")


def groups(*tables: Any) -> tuple[tuple[MarketGroup, ...], list[str]]:
    reading = Reading(Sources(tree={"markets": list(tables)}))
    return market_groups(reading, VENUES, BOTH), reading.faults


def test_symbols_are_stored_as_the_exchange_spells_them() -> None:
    table = {"exchange": "venue", "symbols": ["BTC-USD", "eth-usd"], "feeds": ["trades"], "data_timeout_secs": 5}
    assert groups(table) == ((MarketGroup("venue", ("btc-usd", "eth-usd"), ("trade",), None, 5),), [])


def test_symbols_that_are_none_or_would_leave_their_directory_are_named() -> None:
    _, faults = groups({"exchange": "venue", "symbols": ["BTC USD", "a/b", "ok"]})
    assert faults == [
        'markets[1].symbols = "BTC USD" (default) is no symbol of venue: letters and digits only',
        'markets[1].symbols = "a/b" (default) is no symbol of venue; write letters and digits',
    ]


def test_a_feed_of_a_market_belongs_to_one_group() -> None:
    _, faults = groups(
        {"exchange": "venue", "symbols": ["BTC", "ETH"]},
        {"exchange": "venue", "symbols": ["btc", "xrp", "XRP"], "feeds": ["trades"]},
    )
    alike = "(spelled alike, venue has one {}); list each market once"
    assert faults == [
        f'markets[2].symbols = "btc" (default) is listed in markets[1] already {alike.format("btc")}',
        f'markets[2].symbols = "xrp" (default) is listed twice {alike.format("xrp")}',
    ]


def test_a_market_may_have_its_feeds_in_two_groups() -> None:
    tables = [{"exchange": "venue", "symbols": ["BTC"], "feeds": [feed]} for feed in ("orderbook", "trades")]
    found, faults = groups(*tables)
    assert ([group.feeds for group in found], faults) == ([("orderbook",), ("trade",)], [])


def test_what_is_missing_unknown_or_no_table_is_named() -> None:
    found, faults = groups({"symbols": ["a"], "symbol": "b"}, "venue", {"exchange": "venue", "symbols": "btc"})
    assert found == ()
    assert faults == [
        "markets[1].symbol (default) is no setting; did you mean symbols?",
        "markets[1].exchange (default) is missing; every [[markets]] needs it",
        "markets[2] (default) is no table; write [markets[2]] and its keys in lines below",
        'markets[3].symbols = "btc" (default) is no list of texts; write ["first", "second"]',
    ]


def test_no_group_or_one_with_single_brackets_is_a_fault() -> None:
    assert groups() == ((), [NO_MARKETS])
    reading = Reading(Sources(tree={"markets": {"exchange": "venue"}}))
    assert market_groups(reading, VENUES, BOTH) == ()
    assert reading.faults == ["markets (default) is no list; write [[markets]], two brackets"]


def test_an_exchange_speaks_for_itself_unless_it_is_overruled() -> None:
    given = {"orderbook_channel": "book5", "proxy": "http://p:3128", "connections": 2}
    reading = Reading(Sources(tree={"exchanges": {"venue": given}}))
    assert exchange_settings(reading, VENUES) == {
        "venue": ExchangeSettings("wss://venue.test/ws", "https://venue.test", "http://p:3128", "book5", "trade", 2)
    }
    assert reading.faults == []


def test_a_channel_that_the_exchange_does_not_have_is_told_the_others() -> None:
    reading = Reading(Sources(tree={"exchanges": {"venue": {"orderbook_channel": "depth"}}}))
    exchange_settings(reading, VENUES)
    assert reading.faults == [
        'exchanges.venue.orderbook_channel = "depth" (default) is no such channel of venue; choose from book, book5'
    ]


def test_words_for_feeds_become_data_types_each_once() -> None:
    assert feed_types(Reading(Sources()), "collector.feeds", ("trades", "orderbook", "trades")) == (
        "trade",
        "orderbook",
    )
