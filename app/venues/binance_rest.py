"""Binance over REST: symbols, book, trades by id.

Source: binance-spot-api-docs, rest-api.md (2026-07). `historicalTrades` goes up from `fromId`; without one, all three
lists end with the newest. An aggregate is one trade here; its number is not the trade's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.venues.dialect import Answer, answer
from app.venues.figures import Writer, padded, pairs, whole
from app.venues.instruments import Instrument
from app.venues.tape import Tape, Trade

if TYPE_CHECKING:
    from app.venues.dialect import Venue

SYMBOLS = "/api/v3/exchangeInfo"
LIMIT = 1000
#: The longest time that startTime and endTime may span, in milliseconds.
SPAN_MS = 3_600_000
FOREVER = 1 << 62


def writers(instrument: Instrument) -> tuple[Writer, Writer]:
    """Prices and sizes always show eight decimals."""
    return padded(instrument.price_decimals, 8), padded(instrument.size_decimals, 8)


def reply(venue: Venue, path: str, query: dict[str, str], now_us: int) -> Answer | None:
    """The answer to a GET; None: no such path."""
    if path == SYMBOLS:
        return _exchange_info(venue, query.get("symbol"), now_us)
    if path not in ("/api/v3/depth", "/api/v3/trades", "/api/v3/historicalTrades", "/api/v3/aggTrades"):
        return None
    symbol = query.get("symbol", "")
    if not symbol:
        words = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
        return _refused(-1102, words)
    if symbol.lower() not in venue.instruments or not symbol.isupper():
        return _refused(-1121, "Invalid symbol.")
    if path == "/api/v3/depth":
        return _depth(venue, symbol, query.get("limit"), now_us)
    names = () if path == "/api/v3/trades" else ("fromId", "startTime", "endTime")
    limit = whole(query.get("limit"), 500, 1, FOREVER)
    numbers: dict[str, int | None] = {name: whole(query[name], 0, 0, FOREVER) for name in names if name in query}
    if limit is None or None in numbers.values():
        name = next((name for name, number in numbers.items() if number is None), "limit")
        return _refused(-1100, f"Illegal characters found in parameter '{name}'.")
    market = venue.market(symbol.lower(), now_us)
    price, size = writers(market.instrument)
    if path != "/api/v3/aggTrades":
        return answer([_trade(one, market.instrument, price, size) for one in _found(market.tape, numbers, limit, 0)])
    start, end = numbers.get("startTime"), numbers.get("endTime")
    if start is not None and end is not None and end - start > SPAN_MS:
        return _refused(-1127, "More than 1 hours between startTime and endTime.")
    # Aggregates count by themselves: here from half of what trades count from.
    shift = venue.first_id - venue.first_id // 2
    return answer([_aggregate(one, price, size, shift) for one in _found(market.tape, numbers, limit, shift)])


def _found(tape: Tape, asked: dict[str, int | None], limit: int, shift: int) -> list[Trade]:
    """Ascending: from an id, or (aggregates only, which have a shift) of a time, or the newest."""
    limit = min(limit, LIMIT)
    if (first_id := asked.get("fromId")) is not None:
        first = tape.place(first_id + shift)
        return tape.between(first, first + limit)
    if shift and ("startTime" in asked or "endTime" in asked):
        start, end = asked.get("startTime") or 0, asked.get("endTime") or FOREVER
        of_time = [trade for trade in tape.newest_first() if start <= trade.time_us // 1000 <= end][::-1]
        return of_time[:limit] if "startTime" in asked else of_time[-limit:]
    return tape.between(len(tape) - limit, len(tape))


def _trade(trade: Trade, instrument: Instrument, price: Writer, size: Writer) -> dict[str, Any]:
    quoted = trade.price * trade.size * 10**8 // 10 ** (instrument.price_decimals + instrument.size_decimals)
    return {
        "id": trade.id,
        "price": price(trade.price),
        "qty": size(trade.size),
        "quoteQty": padded(8, 8)(quoted),
        "time": trade.time_us // 1000,
        "isBuyerMaker": not trade.taker_buys,
        "isBestMatch": True,
    }


def _aggregate(trade: Trade, price: Writer, size: Writer, shift: int) -> dict[str, Any]:
    return {
        "a": trade.id - shift,
        "p": price(trade.price),
        "q": size(trade.size),
        "f": trade.id,
        "l": trade.id,
        "T": trade.time_us // 1000,
        "m": not trade.taker_buys,
        "M": True,
    }


def _exchange_info(venue: Venue, symbol: str | None, now_us: int) -> Answer:
    listed = [i for i in venue.listed if symbol in (None, i.symbol.upper())]
    if not listed:
        return _refused(-1121, "Invalid symbol.")
    symbols = [
        {
            "symbol": i.symbol.upper(),
            "status": "TRADING",
            "baseAsset": i.base,
            "baseAssetPrecision": 8,
            "quoteAsset": i.quote,
            "quotePrecision": 8,
        }
        for i in listed
    ]
    info = {"timezone": "UTC", "serverTime": now_us // 1000, "rateLimits": [], "exchangeFilters": []}
    return answer(info | {"symbols": symbols})


def _depth(venue: Venue, symbol: str, asked: str | None, now_us: int) -> Answer:
    limit = whole(asked, 100, 1, 5000)
    if limit is None:
        return _refused(-1100, "Illegal characters found in parameter 'limit'.")
    market = venue.market(symbol.lower(), now_us)
    price, size = writers(market.instrument)
    bids, asks = (pairs(side.top(limit), price, size) for side in (market.bids, market.asks))
    return Answer(f'{{"lastUpdateId":{market.update_id},"bids":[{bids}],"asks":[{asks}]}}'.encode())


def _refused(code: int, words: str) -> Answer:
    return answer({"code": code, "msg": words}, 400)
