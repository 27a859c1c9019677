"""The [exchanges.<name>] tables and the [[markets]] groups, judged with the words of the exchanges themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.config import ExchangeSettings, MarketGroup
from app.errors import InvalidSymbol
from app.exchanges.base import Exchange
from app.model import FEEDS
from app.settings_reading import Reading, meant, names
from app.settings_rules import is_name

#: Exchange and `source` -> that feed of the venue.
BySource = Mapping[tuple[str, str], Exchange]
NO_SOURCES: BySource = {}

NO_MARKETS = """no market is to be recorded; add at least one to settings.toml:
    [[markets]]
    exchange = "binance"
    symbols = ["btcusdt"]"""


def feed_types(reading: Reading, key: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Data types (`orderbook`, `trade`) for the words of a user (`orderbook`, `trades`), each once."""
    for word in words:
        if word not in FEEDS:
            reading.fault(key, key, word, f"is no feed; {meant(word, FEEDS)}")
    return tuple(dict.fromkeys(FEEDS[word] for word in words if word in FEEDS))


def exchange_settings(
    reading: Reading, exchanges: Mapping[str, Exchange], by_source: BySource = NO_SOURCES
) -> dict[str, ExchangeSettings]:
    """The settings of every registered exchange: what the user gave, else what the chosen feed says about itself."""
    tables = reading.table("exchanges", reading.sources.tree.get("exchanges", {}), exchanges)
    return {
        name: _exchange(reading, exchange, name, tables.get(name, {}), by_source)
        for name, exchange in exchanges.items()
    }


def _exchange(
    reading: Reading, registered: Exchange, name: str, table: object, by_source: BySource
) -> ExchangeSettings:
    key = f"exchanges.{name}"
    given = reading.record(ExchangeSettings, key, "exchanges", reading.table(key, table, names(ExchangeSettings)))
    exchange = registered
    if "source" in given:
        known = [source for owner, source in by_source if owner == name]
        exchange = by_source.get((name, given["source"]), registered)
        if given["source"] not in known:
            why = f"choose from {', '.join(known)}" if known else "leave the key out, it has only one"
            reading.fault(f"{key}.source", "exchanges.source", given.pop("source"), f"is no source of {name}; {why}")
    _judge_key(reading, exchange, key, given)
    offered = {"orderbook_channel": exchange.orderbook_channels, "trade_channel": exchange.trade_channels}
    for channel, choices in offered.items():
        if channel in given and given[channel] not in choices:
            why = f"is no such channel of {name}; choose from {', '.join(choices)}"
            reading.fault(f"{key}.{channel}", "exchanges.channel", given[channel], why)
    defaults = {
        "ws_url": exchange.ws_url,
        "rest_url": exchange.rest_url,
        "proxy": None,
        **{channel: choices[0] for channel, choices in offered.items()},
    }
    return ExchangeSettings(**{**defaults, **given})


def _judge_key(reading: Reading, exchange: Exchange, key: str, given: dict[str, Any]) -> None:
    """Name and secret of an API key: both or neither, and a secret that signs. A key nobody asks for is warned about."""
    held = [name for name in ("api_key", "api_secret") if name in given]
    if not exchange.takes_key:
        for name in held:
            origin = reading.sources.origin(f"{key}.{name}")
            reading.sources.warnings.append(f"{key}.{name} ({origin}) is not used: this source of data takes no key")
    elif len(held) == 1 and not {f"{key}.api_key", f"{key}.api_secret"} & reading.faulty:
        other = "api_secret" if held == ["api_key"] else "api_key"
        why = f"is given without {key}.{other}; give both, or neither: public data needs no key"
        reading.fault(f"{key}.{held[0]}", f"exchanges.{held[0]}", given[held[0]], why)
    elif len(held) == 2:
        try:
            exchange.signer(given["api_key"], given["api_secret"])
        except ValueError as error:
            reading.fault(f"{key}.api_secret", "exchanges.api_secret", given["api_secret"], str(error))


def market_groups(
    reading: Reading, exchanges: Mapping[str, Exchange], feeds: tuple[str, ...]
) -> tuple[MarketGroup, ...]:
    """The groups in the order of the file, symbols canonical; `feeds` (data types) for those that name none."""
    tables = reading.sources.tree.get("markets", [])
    if not isinstance(tables, list):
        reading.faults.append(
            f"markets ({reading.sources.origin('markets')}) is no list; write [[markets]], two brackets"
        )
        return ()
    if not tables:
        reading.faults.append(NO_MARKETS)
    owners: dict[tuple[str, str, str], str] = {}
    delivered: dict[tuple[str, str, str], str] = {}
    groups = []
    for number, table in enumerate(tables, 1):
        group = _group(reading, exchanges, f"markets[{number}]", table, feeds)
        if group is not None:
            groups.append(group)
            _refuse_twice(reading, f"markets[{number}]", group, owners)
            _refuse_one_for_two(reading, f"markets[{number}]", group, exchanges[group.exchange], delivered)
    return tuple(groups)


def _group(
    reading: Reading, exchanges: Mapping[str, Exchange], key: str, table: object, feeds: tuple[str, ...]
) -> MarketGroup | None:
    allowed = reading.table(key, table, names(MarketGroup))
    given = reading.record(MarketGroup, key, "markets", allowed)
    for name in ("exchange", "symbols"):
        if name not in allowed and isinstance(table, dict):
            reading.faults.append(
                f"{key}.{name} ({reading.sources.origin(key)}) is missing; every [[markets]] needs it"
            )
    if not {"exchange", "symbols"} <= given.keys():
        return None
    exchange = exchanges.get(given["exchange"])
    if exchange is None:
        why = f"is no known exchange; {meant(given['exchange'], exchanges)}"
        reading.fault(f"{key}.exchange", "markets.exchange", given["exchange"], why)
        return None
    if "feeds" in given:
        given["feeds"] = feed_types(reading, f"{key}.feeds", given["feeds"])
    else:
        given["feeds"] = feeds
        reading.origins[f"{key}.feeds"] = "default, as collector.feeds"
    canonical = (_canonical(reading, f"{key}.symbols", exchange, symbol) for symbol in given["symbols"])
    given["symbols"] = tuple(symbol for symbol in canonical if symbol is not None)
    return MarketGroup(**given)


def _canonical(reading: Reading, key: str, exchange: Exchange, symbol: str) -> str | None:
    try:
        canonical = exchange.canonical(symbol)
    except InvalidSymbol as error:
        reading.fault(key, "markets.symbols", symbol, f"is no symbol of {exchange.name}: {error.remedy}")
        return None
    if not is_name(canonical):  # it becomes part of paths and keys
        reading.fault(
            key, "markets.symbols", symbol, f"is no symbol of {exchange.name}; write {exchange.symbol_example}"
        )
        return None
    return canonical


def _refuse_twice(reading: Reading, key: str, group: MarketGroup, owners: dict[tuple[str, str, str], str]) -> None:
    """A feed of a market belongs to one group, or two connections would both claim to be its record."""
    for symbol in dict.fromkeys(group.symbols):
        earlier = {owners.setdefault((group.exchange, symbol, feed), key) for feed in group.feeds} - {key}
        if earlier or group.symbols.count(symbol) > 1:
            where = f"in {', '.join(sorted(earlier))} already" if earlier else "twice"
            why = f"is listed {where} (spelled alike, {group.exchange} has one {symbol}); list each market once"
            reading.fault(f"{key}.symbols", "markets.symbols", symbol, why)


def _refuse_one_for_two(
    reading: Reading, key: str, group: MarketGroup, exchange: Exchange, delivered: dict[tuple[str, str, str], str]
) -> None:
    """Where the venue has one feed for two of its symbols, frames would not tell whose they are."""
    for symbol in dict.fromkeys(group.symbols):
        name = exchange.delivered(symbol)
        others = {delivered.setdefault((group.exchange, name, feed), symbol) for feed in group.feeds} - {symbol}
        if others:
            why = f"is the feed of {', '.join(sorted(others))} under another name; list one of them"
            reading.fault(f"{key}.symbols", "markets.symbols", symbol, why)
