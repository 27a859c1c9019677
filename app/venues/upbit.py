"""Upbit: order books of 30 levels and trades, in binary frames, DEFAULT or SIMPLE.

Source: docs.upbit.com, WebSocket guide, websocket-orderbook, websocket-trade (2026-10). There is no acknowledgement; an
unknown code is followed by silence; a later subscribe message replaces the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

import msgspec

from app.venues import upbit_rest
from app.venues.dialect import (
    ORDERBOOK,
    TRADE,
    Action,
    Answer,
    Close,
    Event,
    Frame,
    Join,
    Leave,
    Session,
    Topic,
    Venue,
    decoded,
    encoded,
    say,
)
from app.venues.figures import number
from app.venues.instruments import Instrument, listing
from app.venues.market import Market, Step
from app.venues.tape import Trade

DEPTHS = ("1", "5", "15", "30")
IDLE_US = 120_000_000
UP_EVERY_US = 10_000_000
#: A request with an Origin header is admitted once in so long.
ORIGIN_US = 10_000_000
UP = '{"status":"UP"}'
ERRORS = {
    "WRONG_FORMAT": "Requested using wrong format",
    "NO_TICKET": "Ticket field must be contained.",
    "NO_TYPE": "type field not exists.",
    "NO_CODES": "codes field not exists.",
    "INVALID_PARAM": "codes field is empty.",
}

#: SIMPLE name -> DEFAULT name.
# fmt: off
NAMES = {
    "ty": "type", "cd": "code", "tms": "timestamp", "st": "stream_type",
    "tas": "total_ask_size", "tbs": "total_bid_size", "obu": "orderbook_units", "lv": "level",
    "ap": "ask_price", "bp": "bid_price", "as": "ask_size", "bs": "bid_size",
    "td": "trade_date", "ttm": "trade_time", "ttms": "trade_timestamp", "tp": "trade_price", "tv": "trade_volume",
    "ab": "ask_bid", "pcp": "prev_closing_price", "c": "change", "cp": "change_price", "sid": "sequential_id",
    "bap": "best_ask_price", "bas": "best_ask_size", "bbp": "best_bid_price", "bbs": "best_bid_size",
}
# fmt: on
#: For each format, the names it uses.
KEYS = {"DEFAULT": NAMES, "SIMPLE": {short: short for short in NAMES}}


class Orderbook(Topic):
    """A full snapshot of the best levels each time: first with SNAPSHOT, then REALTIME."""

    def __init__(self, name: str, market: Market, depth: int, keys: dict[str, str]) -> None:
        super().__init__(name, market)
        self.depth, self.keys = depth, keys
        self.price, self.size = number(market.instrument.price_decimals), number(market.instrument.size_decimals)

    def opening(self, now_us: int) -> list[Frame]:
        return [self._frame("SNAPSHOT", now_us)]

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        return [self._frame("REALTIME", now_us)] if step.changes else []

    def _frame(self, kind: str, now_us: int) -> Frame:
        k, price, size = self.keys, self.price, self.size
        asks, bids = self.market.asks.top(self.depth), self.market.bids.top(self.depth)
        ap, bp, az, bz = k["ap"], k["bp"], k["as"], k["bs"]
        units = ",".join(
            [
                f'{{"{ap}":{price(a)},"{bp}":{price(b)},"{az}":{size(x)},"{bz}":{size(y)}}}'
                for (a, x), (b, y) in zip(asks, bids, strict=False)
            ]
        )
        total_asks, total_bids = size(sum(x for _, x in asks)), size(sum(y for _, y in bids))
        text = (
            f'{{"{k["ty"]}":"orderbook","{k["cd"]}":"{self.symbol}","{k["tms"]}":{now_us // 1000},'
            f'"{k["tas"]}":{total_asks},"{k["tbs"]}":{total_bids},"{k["obu"]}":[{units}],'
            f'"{k["st"]}":"{kind}","{k["lv"]}":0}}'
        )
        return Frame(text, (Event(self.symbol, ORDERBOOK, None, text),), binary=True)


class Trades(Topic):
    """One trade a frame. Ids are unique and 17 digits long; now and then the newer of two trades comes first."""

    feed = TRADE

    def __init__(self, name: str, market: Market, keys: dict[str, str]) -> None:
        super().__init__(name, market)
        self.keys = keys
        self.price, self.size = number(market.instrument.price_decimals), number(market.instrument.size_decimals)

    def opening(self, now_us: int) -> list[Frame]:
        return [self._frame("SNAPSHOT", self.market.last_trade, now_us)]

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        trades = step.trades
        if trades and trades[0].sequence % 3 == 0:
            trades = trades[::-1]
        return [self._frame("REALTIME", trade, now_us) for trade in trades]

    def _frame(self, kind: str, trade: Trade, now_us: int) -> Frame:
        k, price, size = self.keys, self.price, self.size
        traded = datetime.fromtimestamp(trade.time_us // 1_000_000, UTC)
        closing = self.market.instrument.price
        trend = "EVEN" if trade.price == closing else "RISE" if trade.price > closing else "FALL"
        (ask, ask_size), (bid, bid_size) = self.market.asks.best(), self.market.bids.best()
        text = (
            f'{{"{k["ty"]}":"trade","{k["cd"]}":"{self.symbol}","{k["tms"]}":{now_us // 1000},'
            f'"{k["td"]}":"{traded:%Y-%m-%d}","{k["ttm"]}":"{traded:%H:%M:%S}","{k["ttms"]}":{trade.time_us // 1000},'
            f'"{k["tp"]}":{price(trade.price)},"{k["tv"]}":{size(trade.size)},'
            f'"{k["ab"]}":"{"BID" if trade.taker_buys else "ASK"}","{k["pcp"]}":{price(closing)},'
            f'"{k["c"]}":"{trend}","{k["cp"]}":{price(abs(trade.price - closing))},"{k["sid"]}":{trade.id},'
            f'"{k["bap"]}":{price(ask)},"{k["bas"]}":{size(ask_size)},"{k["bbp"]}":{price(bid)},'
            f'"{k["bbs"]}":{size(bid_size)},"{k["st"]}":"{kind}"}}'
        )
        return Frame(text, (Event(self.symbol, TRADE, str(trade.id), text),), binary=True)


def sequential_id(last_id: int, count: int, time_us: int) -> int:
    """The milliseconds and four digits more, as Upbit has numbered since 2025; always above `last_id`."""
    return max(last_id + 1, time_us // 1000 * 10_000)


class Wish(NamedTuple):
    """One (type, code) of a subscribe message."""

    topic: str
    snapshot: bool
    realtime: bool


class UpbitSession(Session):
    """Each message is a whole new subscription. Text `PING` is answered with the status, then every 10 s."""

    def __init__(self, venue: Venue, number: int, now_us: int) -> None:
        super().__init__(venue, number, now_us)
        self.up_us: int | None = None

    def due(self, now_us: int, heard_us: int, pushed_us: int) -> list[Action]:
        if now_us - max(heard_us, pushed_us) >= IDLE_US * self.venue.patience:
            return [Close(1000, "idle for 120 seconds")]
        if self.up_us is not None and now_us >= self.up_us:
            self.up_us = now_us + UP_EVERY_US
            return [say(UP)]
        return []

    def received(self, text: str, now_us: int) -> list[Action]:
        if text.strip() == "PING":
            self.up_us = now_us + UP_EVERY_US
            return [say(UP)]
        wishes = self._wishes(decoded(text))
        if isinstance(wishes, str):
            return [say(encoded({"error": {"name": wishes, "message": ERRORS[wishes]}}))]
        actions: list[Action] = [Leave(topic) for topic in self.topics]
        self.topics = dict.fromkeys(wish.topic for wish in wishes)
        return actions + [Join(*wish) for wish in wishes]

    def _wishes(self, message: Any) -> list[Wish] | str:
        """What the message asks for, or the name of its fault."""
        if not isinstance(message, list) or not all(isinstance(part, dict) for part in message):
            return "WRONG_FORMAT"
        if not any("ticket" in part for part in message):
            return "NO_TICKET"
        form = next((part["format"] for part in message if "format" in part), "DEFAULT")
        types = [part for part in message if "type" in part]
        if not isinstance(form, str) or form not in KEYS:
            return "WRONG_FORMAT"
        if not types or any(part["type"] not in ("orderbook", "trade") for part in types):
            return "NO_TYPE"
        wishes: dict[str, Wish] = {}
        for part in types:
            codes = part.get("codes")
            if not isinstance(codes, list):
                return "NO_CODES"
            if not codes:
                return "INVALID_PARAM"
            snapshot = not (part.get("is_only_realtime") or part.get("isOnlyRealtime"))
            realtime = not (part.get("is_only_snapshot") or part.get("isOnlySnapshot"))
            for code in codes:
                symbol, _, depth = str(code).partition(".")
                topic = f"{part['type']}:{symbol}:{depth if depth in DEPTHS else '30'}:{form}"
                wishes[topic] = Wish(topic, snapshot, realtime)
        return list(wishes.values())


class _Simple(msgspec.Struct):
    ty: str
    cd: str
    sid: int | None = None


class _Default(msgspec.Struct):
    type: str
    code: str
    sequential_id: int | None = None


class Upbit(Venue):
    """Canonical symbols are quote first, such as KRW-BTC."""

    name = "upbit"
    ws_paths = ("/websocket/v1",)
    ws_base = "/websocket/v1"
    symbols_path = upbit_rest.SYMBOLS
    levels = 60

    def __init__(self, instruments: dict[str, Instrument], seed: int, first_id: int) -> None:
        super().__init__(instruments, seed, first_id)
        self.origins: dict[str, int] = {}

    @classmethod
    def listing(cls) -> dict[str, Instrument]:
        return {i.symbol: i for i in listing("{quote}-{base}", "KRW", 8)}

    def session(self, number: int, query: dict[str, str], now_us: int) -> Session:
        return UpbitSession(self, number, now_us)

    def make_market(self, instrument: Instrument, random: Random, now_us: int) -> Market:
        return Market(instrument, random, self.levels, self.first_id, now_us, next_id=sequential_id)

    def make_topic(self, name: str, now_us: int) -> Topic | None:
        kind, _, rest = name.partition(":")
        symbol, depth, form = rest.rsplit(":", 2)
        if symbol not in self.instruments:
            return None
        market = self.market(symbol, now_us)
        if kind == "trade":
            return Trades(name, market, KEYS[form])
        return Orderbook(name, market, int(depth), KEYS[form])

    def steps(self, market: Market, now_us: int) -> Iterator[Step]:
        """As elsewhere; but now and then the book changes twice in a millisecond."""
        yield from super().steps(market, now_us)
        if market.random.random() < 0.1:
            yield market.step(0, now_us)

    def refusal(self, origin: str | None, address: str, now_us: int) -> int | None:
        if origin is None:
            return None
        self.origins = {a: seen for a, seen in self.origins.items() if now_us - seen < ORIGIN_US}
        if address in self.origins:
            return 429
        self.origins[address] = now_us
        return None

    def rest(self, path: str, query: dict[str, str], now_us: int) -> Answer | None:
        return upbit_rest.reply(self, path, query, now_us)

    def recorded_as(self, topic: str) -> str:
        return topic.rsplit(":", 2)[0]

    @staticmethod
    def read(line: str) -> tuple[str, Frame] | None:
        try:
            simple = msgspec.json.decode(line, type=_Simple)
            kind, code, trade_id = simple.ty, simple.cd, simple.sid
        except msgspec.ValidationError:
            default = msgspec.json.decode(line, type=_Default)
            kind, code, trade_id = default.type, default.code, default.sequential_id
        if kind == "orderbook":
            return f"{kind}:{code}", Frame(line, (Event(code, ORDERBOOK, None, line),), binary=True)
        if kind == "trade" and trade_id is not None:
            return f"{kind}:{code}", Frame(line, (Event(code, TRADE, str(trade_id), line),), binary=True)
        return None
