"""Bybit V5 spot over REST: instruments, book, the last 60 trades and no more.

Source: bybit-exchange/docs, v5/market/recent-trade, orderbook, instrument (2026-07). The book's `u` is that of the
1000-level topic.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from app.venues.dialect import Answer, answer
from app.venues.figures import trimmed, whole
from app.venues.market import Market, Side

if TYPE_CHECKING:
    from app.venues.dialect import Venue

#: Trade ids have 19 digits: more than a float holds.
FIRST_TRADE_ID = 2_290_000_000_000_000_000
TRADES, BOOK = "/v5/market/recent-trade", "/v5/market/orderbook"
LIMIT = 60
LEVELS = 1000


def reply(venue: Venue, path: str, query: dict[str, str], now_us: int) -> Answer | None:
    """The answer to a GET; None: no such path."""
    if path not in (TRADES, BOOK, "/v5/market/instruments-info"):
        return None
    if query.get("category") != "spot":
        return _refused("params error: Category is invalid", now_us)
    if path == "/v5/market/instruments-info":
        return _instruments(venue, now_us)
    if query.get("symbol") not in venue.instruments:
        return _refused("Not supported symbols", now_us)
    market = venue.market(query["symbol"], now_us)
    if path == TRADES:
        return _trades(market, query.get("limit"), now_us)
    topic = venue.topics.get(f"orderbook.{LEVELS}.{market.instrument.symbol}")
    return _book(market, query.get("limit"), int(getattr(topic, "u", venue.first_id + 1000 * LEVELS)), now_us)


def _trades(market: Market, asked: str | None, now_us: int) -> Answer:
    limit = whole(asked, LIMIT, 1, LIMIT)
    if limit is None:
        return _refused("params error: Limit is invalid", now_us)
    price, size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)
    rows = [
        {
            "execId": str(FIRST_TRADE_ID + trade.id),
            "symbol": market.instrument.symbol,
            "price": price(trade.price),
            "size": size(trade.size),
            "side": "Buy" if trade.taker_buys else "Sell",
            "time": str(trade.time_us // 1000),
            "isBlockTrade": False,
            "isRPITrade": False,
            "seq": str(trade.sequence),
        }
        for trade in islice(market.tape.newest_first(), limit)
    ]
    return _granted({"category": "spot", "list": rows}, now_us)


def _book(market: Market, asked: str | None, u: int, now_us: int) -> Answer:
    levels = whole(asked, 1, 1, LEVELS)
    if levels is None:
        return _refused("params error: Limit is invalid", now_us)
    price, size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)

    def ladder(side: Side) -> list[tuple[str, str]]:
        return [(price(p), size(s)) for p, s in side.top(levels)]

    now_ms = now_us // 1000
    book = {"s": market.instrument.symbol, "b": ladder(market.bids), "a": ladder(market.asks), "ts": now_ms, "u": u}
    return _granted(book | {"seq": market.sequence, "cts": now_ms}, now_us)


def _instruments(venue: Venue, now_us: int) -> Answer:
    rows = [
        {
            "symbol": i.symbol,
            "baseCoin": i.base,
            "quoteCoin": i.quote,
            "innovation": "0",
            "status": "Trading",
            "lotSizeFilter": {"basePrecision": trimmed(i.size_decimals)(1)},
            "priceFilter": {"tickSize": trimmed(i.price_decimals)(i.tick)},
        }
        for i in venue.listed
    ]
    return _granted({"nextPageCursor": "", "category": "spot", "list": rows}, now_us)


def _granted(result: dict[str, Any], now_us: int) -> Answer:
    return answer({"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": now_us // 1000})


def _refused(words: str, now_us: int) -> Answer:
    return answer({"retCode": 10001, "retMsg": words, "result": {}, "retExtInfo": {}, "time": now_us // 1000})
