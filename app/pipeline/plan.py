"""Which connection carries which market. One pure function, so every process comes to the same answer by itself."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from app.config import Settings
from app.exchanges import exchange_of
from app.exchanges.base import Exchange, Subscription

#: Why a connection, or a whole stream, ended that goes on as the newest plan has it.
PLAN_CHANGED = "plan_changed"


class Stream(msgspec.Struct, frozen=True):
    """One connection: its name, where it goes and what it carries."""

    #: `<exchange>-<slot>-<feeds>`, such as binance-0-orderbook.trade; names lease, list and spool.
    name: str
    exchange: str
    ws_url: str
    rest_url: str
    proxy: str | None
    subscription: Subscription
    #: Seconds without data after which a feed of the symbol is stale (if its own rhythm is not slower).
    data_timeout_s: dict[str, float]
    #: Which feed of the venue, where it has several (`app.exchanges.exchange_of`).
    source: str | None = None
    #: As `[security] private_hosts`.
    private_hosts: tuple[str, ...] = ()


def chosen(settings: Settings) -> dict[str, Exchange]:
    """Every exchange by name, each over the feed that the settings choose."""
    return {name: exchange_of(name, venue.source) for name, venue in settings.exchanges.items()}


def streams(settings: Settings, exchanges: Mapping[str, Exchange]) -> tuple[Stream, ...]:
    """Every stream of these settings, by name. `exchanges`: as `chosen`.

    A market's slot is a hash of its symbol modulo the number of connections, so adding or removing a market moves no
    other. Without `[exchanges.<name>] connections` that number is the smallest power of two that keeps every connection
    within the venue's limit: it changes, and markets move, only when the limit is reached.
    """
    groups: dict[tuple[str, str, tuple[str, ...], float], list[str]] = {}
    for group in settings.markets:
        url = group.base_url or settings.exchanges[group.exchange].ws_url
        timeout_s = group.data_timeout_secs or settings.websocket.message_timeout_secs
        feeds = tuple(sorted(group.feeds))
        groups.setdefault((group.exchange, url, feeds, timeout_s), []).extend(group.symbols)

    planned: dict[str, Stream] = {}
    ranks: dict[tuple[str, tuple[str, ...]], int] = {}
    for (name, url, feeds, timeout_s), symbols in groups.items():
        # The same exchange and feeds by another URL or timeout; how many streams the first one has must not matter.
        rank = ranks[name, feeds] = ranks.get((name, feeds), 0) + 1
        suffix = f"-{rank}" if rank > 1 else ""
        exchange, venue = exchanges[name], settings.exchanges[name]
        limit = exchange.limits.markets_per_connection
        for slot, carried in slots(symbols, venue.connections, limit).items():
            key = f"{name}-{slot}-{'.'.join(feeds)}{suffix}"
            planned[key] = Stream(
                key, name, url, venue.rest_url, venue.proxy,
                Subscription(carried, feeds, venue.orderbook_channel, venue.trade_channel),
                dict.fromkeys(carried, timeout_s),
                venue.source,
                settings.security.private_hosts,
            )  # fmt: skip
    return tuple(planned[key] for key in sorted(planned))


class Changes(NamedTuple):
    """Names of the streams that one plan starts, ends or connects anew after another; all others stay as they are."""

    started: tuple[str, ...]
    ended: tuple[str, ...]
    reconnected: tuple[str, ...]


def changes(before: Mapping[str, Stream], after: Mapping[str, Stream]) -> Changes:
    """What becomes of the streams of `before` when `after` takes its place."""
    both = sorted(before.keys() & after.keys())
    return Changes(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(name for name in both if before[name] != after[name]),
    )


def planned(settings: Settings) -> dict[str, Stream]:
    """Every stream of these settings by name, each over the feed that they choose."""
    return {stream.name: stream for stream in streams(settings, chosen(settings))}


def slots(symbols: list[str], connections: int | None, limit: int) -> dict[int, tuple[str, ...]]:
    """Symbols by slot, each slot's in order; at most `limit` in each where `connections` is None.

    The order is that of the alphabet: another order in the settings is no other plan, and reconnects nothing.
    """
    count = connections or 1
    while True:
        carried: dict[int, list[str]] = {}
        for symbol in dict.fromkeys(symbols):
            carried.setdefault(zlib.crc32(symbol.encode()) % count, []).append(symbol)
        if connections is not None or max(map(len, carried.values())) <= limit:
            return {slot: tuple(sorted(names)) for slot, names in sorted(carried.items())}
        count *= 2
