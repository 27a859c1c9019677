"""OKX over REST: instruments, book, trades by id.

Source: okx.com/docs-v5, market data (2026-07). Newest first. Trades are single here, while a row of the `trades` channel
stands for `count` of them: the ids up to its own. `before` alone pages to the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from app.venues.dialect import Answer, answer
from app.venues.figures import Writer, trimmed, whole
from app.venues.market import Market
from app.venues.tape import Trade

if TYPE_CHECKING:
    from app.venues.dialect import Venue

FOREVER = 1 << 62
#: path -> the most rows of an answer.
TRADES = {"/api/v5/market/trades": 500, "/api/v5/market/history-trades": 100}
BOOKS = "/api/v5/market/books"
BOOK_LEVELS = 400


def ladder(levels: list[tuple[int, int]], price: Writer, size: Writer) -> str:
    """Levels of [price, size, "0", orders]; the number of orders is a function of the size, and 0 for none."""
    return ",".join([f'["{price(p)}","{size(s)}","0","{1 + s % 7 if s else 0}"]' for p, s in levels])


def reply(venue: Venue, path: str, query: dict[str, str], now_us: int) -> Answer | None:
    """The answer to a GET; None: no such path."""
    if path == "/api/v5/public/instruments":
        return _instruments(venue, query)
    if path not in TRADES and path != BOOKS:
        return None
    if "instId" not in query:
        return _refused("50014", "Parameter instId can not be empty.", 400)
    if query["instId"] not in venue.instruments:
        return _refused("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist.")
    market = venue.market(query["instId"], now_us)
    return _book(market, query, now_us) if path == BOOKS else _trades(market, path, query)


def executions(trades: Iterable[Trade]) -> Iterator[Trade]:
    """Each execution of `trades`, newest first as they are; their sizes add up to the trade's."""
    for trade in trades:
        part, rest = divmod(trade.size, trade.executions)
        for n in range(trade.executions):
            yield trade._replace(id=trade.id - n, executions=1, size=part + (rest if n == 0 else 0))


def _trades(market: Market, path: str, query: dict[str, str]) -> Answer:
    most = TRADES[path]
    limit = whole(query.get("limit"), 100, 1, FOREVER)
    kind = whole(query.get("type"), 1, 1, 2)
    after, before = (whole(query.get(name), 0, 0, FOREVER) for name in ("after", "before"))
    numbers = {"limit": limit, "type": kind, "after": after, "before": before}
    if limit is None or kind is None or after is None or before is None:
        wrong = next(name for name, number in numbers.items() if number is None)
        return _refused("51000", f"Parameter {wrong} error", 400)
    if path == "/api/v5/market/trades":
        kind, after, before = 1, 0, 0
    if kind == 1:
        # The trade that has the id among its executions has an id of its own that is not below it.
        newest = executions(market.tape.newest_first(after + market.max_count if after else None))
        found = (one for one in newest if one.id > before and (not after or one.id < after))
    else:
        newest = executions(market.tape.newest_first())
        found = (one for one in newest if one.time_us // 1000 > before and (not after or one.time_us // 1000 < after))
    price, size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)
    rows = [
        {
            "instId": market.instrument.symbol,
            "side": "buy" if one.taker_buys else "sell",
            "sz": size(one.size),
            "source": "0",
            "px": price(one.price),
            "tradeId": str(one.id),
            "ts": str(one.time_us // 1000),
        }
        for one in islice(found, min(limit, most))
    ]
    return _granted(rows)


def _book(market: Market, query: dict[str, str], now_us: int) -> Answer:
    levels = whole(query.get("sz"), 1, 1, BOOK_LEVELS)
    if levels is None:
        return _refused("51000", "Parameter sz error", 400)
    price, size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)
    asks, bids = (ladder(side.top(levels), price, size) for side in (market.asks, market.bids))
    row = f'{{"asks":[{asks}],"bids":[{bids}],"ts":"{now_us // 1000}","seqId":{market.sequence}}}'
    return Answer(f'{{"code":"0","msg":"","data":[{row}]}}'.encode())


def _instruments(venue: Venue, query: dict[str, str]) -> Answer:
    if query.get("instType") != "SPOT":
        return _refused("51000", "Parameter instType error", 400)
    return _granted(
        [
            {
                "baseCcy": i.base,
                "instId": i.symbol,
                "instType": "SPOT",
                "lotSz": trimmed(i.size_decimals)(1),
                "quoteCcy": i.quote,
                "state": "live",
                "tickSz": trimmed(i.price_decimals)(i.tick),
            }
            for i in venue.listed
        ]
    )


def _granted(rows: list[dict[str, Any]]) -> Answer:
    return answer({"code": "0", "msg": "", "data": rows})


def _refused(code: str, words: str, status: int = 200) -> Answer:
    return answer({"code": code, "data": [], "msg": words}, status)
