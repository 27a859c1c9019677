"""Upbit over REST: markets, book, trades by cursor.

Source: docs.upbit.com, "List pair recent trades", "List orderbooks" (2026-10). Newest first. An answer holds the trades
of one UTC day: the day of the newest one, or `days_ago` days before today.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from app.venues.dialect import Answer, answer
from app.venues.figures import Writer, number, whole
from app.venues.instruments import Instrument
from app.venues.market import Market
from app.venues.tape import Trade

if TYPE_CHECKING:
    from app.venues.dialect import Venue

SYMBOLS, TRADES, BOOK = "/v1/market/all", "/v1/trades/ticks", "/v1/orderbook"
LIMIT = 500
BOOK_LEVELS = 30
DAY_US = 86_400_000_000
FOREVER = 1 << 62


def reply(venue: Venue, path: str, query: dict[str, str], now_us: int) -> Answer | None:
    """The answer to a GET; None: no such path."""
    if path == SYMBOLS:
        return answer([{"market": i.symbol, "korean_name": i.base, "english_name": i.base} for i in venue.listed])
    if path not in (TRADES, BOOK):
        return None
    asked = [query.get("market", "")] if path == TRADES else query.get("markets", "").split(",")
    if any(symbol not in venue.instruments for symbol in asked):
        return _refused(404, "Code not found")
    if path == BOOK:
        return _raw([_book(venue.market(symbol, now_us), now_us) for symbol in asked])
    return _trades(venue.market(asked[0], now_us), query, now_us)


def _trades(market: Market, query: dict[str, str], now_us: int) -> Answer:
    count, cursor = whole(query.get("count"), 1, 1, LIMIT), whole(query.get("cursor"), 0, 0, FOREVER)
    days_ago = whole(query.get("days_ago"), 0, 1, 7)
    until_us = _of_day(query.get("to", "23:59:59"))
    if count is None or cursor is None or days_ago is None or until_us is None:
        return _refused(400, "invalid parameter")
    day = (now_us // DAY_US - days_ago) if days_ago else market.last_trade.time_us // DAY_US

    def wanted() -> Iterator[Trade]:
        for trade in market.tape.newest_first(cursor or None):
            if trade.time_us // DAY_US == day and trade.time_us % DAY_US < until_us:
                yield trade

    price, size = number(market.instrument.price_decimals), number(market.instrument.size_decimals)
    return _raw([_row(trade, market.instrument, price, size) for trade in islice(wanted(), count)])


def _of_day(text: str) -> int | None:
    """The microseconds of a day up to the end of the second `HH:MM:SS`, or `HHMMSS`."""
    try:
        at = datetime.strptime(text.replace(":", ""), "%H%M%S")
    except ValueError:
        return None
    return (at.hour * 3600 + at.minute * 60 + at.second + 1) * 1_000_000


def _row(trade: Trade, instrument: Instrument, price: Writer, size: Writer) -> str:
    traded = datetime.fromtimestamp(trade.time_us // 1_000_000, UTC)
    return (
        f'{{"market":"{instrument.symbol}","trade_date_utc":"{traded:%Y-%m-%d}","trade_time_utc":"{traded:%H:%M:%S}",'
        f'"timestamp":{trade.time_us // 1000},"trade_price":{price(trade.price)},"trade_volume":{size(trade.size)},'
        f'"prev_closing_price":{price(instrument.price)},"change_price":{price(trade.price - instrument.price)},'
        f'"ask_bid":"{"BID" if trade.taker_buys else "ASK"}","sequential_id":{trade.id}}}'
    )


def _book(market: Market, now_us: int) -> str:
    price, size = number(market.instrument.price_decimals), number(market.instrument.size_decimals)
    asks, bids = market.asks.top(BOOK_LEVELS), market.bids.top(BOOK_LEVELS)
    units = ",".join(
        [
            f'{{"ask_price":{price(a)},"bid_price":{price(b)},"ask_size":{size(x)},"bid_size":{size(y)}}}'
            for (a, x), (b, y) in zip(asks, bids, strict=False)
        ]
    )
    return (
        f'{{"market":"{market.instrument.symbol}","timestamp":{now_us // 1000},'
        f'"total_ask_size":{size(sum(x for _, x in asks))},"total_bid_size":{size(sum(y for _, y in bids))},'
        f'"orderbook_units":[{units}],"level":0}}'
    )


def _raw(rows: list[str]) -> Answer:
    return Answer(f"[{','.join(rows)}]".encode())


def _refused(status: int, words: str) -> Answer:
    error: dict[str, Any] = {"name": status, "message": words}
    return answer({"error": error}, status)
