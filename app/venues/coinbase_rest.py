"""Coinbase Exchange over REST: products, book, trades by pages.

Source: docs.cdp.coinbase.com, Exchange "Get product trades", "Get product book" and pagination (2026). Newest first;
`after` goes to older trades, `before` to newer ones, of which it shows the newest, and CB-BEFORE and CB-AFTER name the
first and the last of a page.
"""

from __future__ import annotations

import re
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from app.venues.dialect import Answer, answer, encoded
from app.venues.figures import Writer, padded, rfc3339, whole
from app.venues.instruments import Instrument
from app.venues.market import Market, Side

if TYPE_CHECKING:
    from app.venues.dialect import Venue

SYMBOLS = "/products"
OF_PRODUCT = re.compile(r"/products/(?P<product>[^/]+)/(?P<what>trades|book)")
LIMIT = 1000
FOREVER = 1 << 62


def writers(instrument: Instrument) -> tuple[Writer, Writer]:
    """Prices show the product's decimals, sizes eight."""
    return padded(instrument.price_decimals, instrument.price_decimals), padded(instrument.size_decimals, 8)


def reply(venue: Venue, path: str, query: dict[str, str], now_us: int) -> Answer | None:
    """The answer to a GET; None: no such path."""
    if path == SYMBOLS:
        return _products(venue)
    asked = OF_PRODUCT.fullmatch(path)
    if not asked:
        return None
    if asked["product"] not in venue.instruments:
        return answer({"message": "NotFound"}, 404)
    market = venue.market(asked["product"], now_us)
    return _trades(market, query) if asked["what"] == "trades" else _book(market, query, now_us)


def _trades(market: Market, query: dict[str, str]) -> Answer:
    limit = whole(query.get("limit"), LIMIT, 1, LIMIT)
    after, before = (whole(query.get(name), 0, 0, FOREVER) for name in ("after", "before"))
    if limit is None or after is None or before is None:
        name = next(name for name, number in (("limit", limit), ("after", after), ("before", before)) if number is None)
        return answer({"message": f"Invalid {name}"}, 400)
    newest = market.tape.newest_first(after or None)
    found = list(islice(takewhile(lambda trade: trade.id > before, newest), limit))
    price, size = writers(market.instrument)
    rows = [
        {
            "trade_id": trade.id,
            "side": "sell" if trade.taker_buys else "buy",
            "size": size(trade.size),
            "price": price(trade.price),
            "time": rfc3339(trade.time_us),
        }
        for trade in found
    ]
    pages = (("CB-BEFORE", str(found[0].id)), ("CB-AFTER", str(found[-1].id))) if found else ()
    return Answer(encoded(rows).encode(), headers=pages)


def _book(market: Market, query: dict[str, str], now_us: int) -> Answer:
    level = whole(query.get("level"), 1, 1, 2)
    if level is None:
        return answer({"message": "Invalid level"}, 400)
    price, size = writers(market.instrument)

    def ladder(side: Side) -> list[tuple[str, str, int]]:
        return [(price(p), size(s), 1 + s % 7) for p, s in side.top(1 if level == 1 else len(side.keys))]

    book = {"bids": ladder(market.bids), "asks": ladder(market.asks), "sequence": market.sequence}
    return answer(book | {"auction_mode": False, "auction": None, "time": rfc3339(now_us)})


def _products(venue: Venue) -> Answer:
    return answer(
        [
            {
                "id": i.symbol,
                "base_currency": i.base,
                "quote_currency": i.quote,
                "quote_increment": padded(i.price_decimals, i.price_decimals)(i.tick),
                "base_increment": "0.00000001",
                "display_name": i.symbol.replace("-", "/"),
                "status": "online",
                "status_message": "",
                "trading_disabled": False,
                "cancel_only": False,
                "post_only": False,
                "limit_only": False,
            }
            for i in venue.listed
        ]
    )
