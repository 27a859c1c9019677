"""Binance spot, combined streams (`/stream`): partial depth, diff depth and trades.

Source: binance-spot-api-docs, web-socket-streams.md and rest-api.md (2026-07). As the venue does, a SUBSCRIBE to a
symbol that does not exist is answered with success, and nothing follows.
"""

from __future__ import annotations

import re
from collections import deque

import msgspec

from app.venues import binance_rest
from app.venues.binance_rest import writers
from app.venues.dialect import (
    ORDERBOOK,
    TRADE,
    Action,
    Answer,
    Close,
    Event,
    Frame,
    Session,
    Topic,
    Venue,
    decoded,
    encoded,
    say,
)
from app.venues.figures import pairs
from app.venues.instruments import Instrument, listing
from app.venues.market import BID, Change, Market, Step

STREAM = re.compile(r"(?P<symbol>[a-z0-9_]+)@(?:depth(?P<levels>5|10|20)(?:@100ms)?|(?P<diff>depth(?:@100ms)?)|trade)")
#: Streams of one connection. What the venue does with one more is not documented; here the whole request is refused.
STREAMS = 1024
#: Connections are closed when they are a day old.
MAX_AGE_US = 86_400_000_000
#: Client messages a second on one connection; above it the venue disconnects.
MESSAGES_PER_S = 5


class PartialDepth(Topic):
    """The best levels of both sides in each frame. `lastUpdateId` jumps; equal ids mean equal content."""

    def __init__(self, name: str, market: Market, levels: int) -> None:
        super().__init__(name, market)
        self.levels = levels
        self.price, self.size = writers(market.instrument)
        self.last = 0

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        market = self.market
        if market.update_id == self.last:
            return []
        self.last = market.update_id
        bids = pairs(market.bids.top(self.levels), self.price, self.size)
        asks = pairs(market.asks.top(self.levels), self.price, self.size)
        text = f'{{"stream":"{self.name}","data":{{"lastUpdateId":{self.last},"bids":[{bids}],"asks":[{asks}]}}}}'
        return [Frame(text, (Event(self.symbol, ORDERBOOK, None, text),))]


class DiffDepth(Topic):
    """Absolute sizes of the levels that changed; `U` is the `u` of the frame before plus 1."""

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, market)
        self.price, self.size = writers(market.instrument)
        self.last = 0

    def begin(self, now_us: int) -> None:
        self.last = self.market.update_id

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        first, self.last = self.last + 1, self.market.update_id
        if self.last < first:
            return []
        text = (
            f'{{"stream":"{self.name}","data":{{"e":"depthUpdate","E":{now_us // 1000},"s":"{self.symbol.upper()}",'
            f'"U":{first},"u":{self.last},"b":[{self._side(step.changes, True)}],'
            f'"a":[{self._side(step.changes, False)}]}}}}'
        )
        return [Frame(text, (Event(self.symbol, ORDERBOOK, None, text),))]

    def _side(self, changes: list[Change], bids: bool) -> str:
        levels = [(price, size) for side, price, size, _ in changes if (side == BID) is bids]
        return pairs(sorted(levels, reverse=bids), self.price, self.size)


class Trades(Topic):
    """One trade a frame; `t` counts one by one. `m`: the buyer was the maker, so the taker sold."""

    feed = TRADE

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, market)
        self.price, self.size = writers(market.instrument)

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        frames = []
        for trade in step.trades:
            data = (
                f'{{"e":"trade","E":{now_us // 1000},"s":"{self.symbol.upper()}","t":{trade.id},'
                f'"p":"{self.price(trade.price)}","q":"{self.size(trade.size)}","T":{trade.time_us // 1000},'
                f'"m":{"false" if trade.taker_buys else "true"},"M":true}}'
            )
            event = Event(self.symbol, TRADE, str(trade.id), data)
            frames.append(Frame(f'{{"stream":"{self.name}","data":{data}}}', (event,)))
        return frames


class BinanceSession(Session):
    """SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS, and streams named in the URL."""

    def __init__(self, venue: Venue, number: int, now_us: int, streams: list[str]) -> None:
        super().__init__(venue, number, now_us)
        self.streams = streams
        self.heard: deque[int] = deque()

    def opened(self) -> list[Action]:
        if len(self.streams) > STREAMS:
            return [Close(1008, "Too many streams")]
        return [action for stream in self.streams for action in self.join(stream)]

    def due(self, now_us: int, heard_us: int, pushed_us: int) -> list[Action]:
        return [Close(1001, "24 hours")] if now_us - self.opened_us >= MAX_AGE_US else []

    def farewell(self, now_us: int) -> list[Action]:
        down = f'{{"e":"serverShutdown","E":{now_us // 1000}}}'
        return [say(f'{{"stream":"!serverShutdown","data":{down}}}')]

    def received(self, text: str, now_us: int) -> list[Action]:
        self.heard.append(now_us)
        while self.heard[0] <= now_us - 1_000_000:
            self.heard.popleft()
        if len(self.heard) > MESSAGES_PER_S:
            return [Close(1008, "Too many requests")]
        request = decoded(text)
        if request is None:
            return [say('{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"}')]
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return [say('{"code":2,"msg":"Invalid request: missing field `method`"}')]
        known = encoded(request.get("id"))
        if request["method"] == "LIST_SUBSCRIPTIONS":
            return [say(f'{{"result":{encoded(list(self.topics))},"id":{known}}}')]
        streams = request.get("params")
        if not isinstance(streams, list) or not all(isinstance(stream, str) for stream in streams):
            return [say('{"code":2,"msg":"Invalid request: missing field `params`"}')]
        change = {"SUBSCRIBE": self.join, "UNSUBSCRIBE": self.leave}.get(request["method"])
        if change is None:
            return [say(f'{{"code":2,"msg":"Invalid request: unknown variant","id":{known}}}')]
        if change == self.join and len(self.topics.keys() | set(streams)) > STREAMS:
            return [say(f'{{"code":2,"msg":"Invalid request: more than {STREAMS} streams","id":{known}}}')]
        acted: list[Action] = [say(f'{{"result":null,"id":{known}}}')]
        return acted + [action for stream in streams for action in change(stream)]


class _Combined(msgspec.Struct):
    stream: str
    data: msgspec.Raw


class _Trade(msgspec.Struct):
    t: int


class _Aggregate(msgspec.Struct):
    a: int


class Binance(Venue):
    """Canonical symbols are lower case, such as btcusdt."""

    name = "binance"
    ws_paths = ("/stream",)
    symbols_path = binance_rest.SYMBOLS
    ping_every_s = 20
    levels = 1000

    @classmethod
    def listing(cls) -> dict[str, Instrument]:
        listed = listing("{base}{quote}", "USDT", 5)
        return {i.symbol.lower(): msgspec.structs.replace(i, symbol=i.symbol.lower()) for i in listed}

    def session(self, number: int, query: dict[str, str], now_us: int) -> Session:
        return BinanceSession(self, number, now_us, [s for s in query.get("streams", "").split("/") if s])

    def make_topic(self, name: str, now_us: int) -> Topic | None:
        stream = STREAM.fullmatch(name)
        if not stream or stream["symbol"] not in self.instruments:
            return None
        market = self.market(stream["symbol"], now_us)
        if stream["levels"]:
            return PartialDepth(name, market, int(stream["levels"]))
        return DiffDepth(name, market) if stream["diff"] else Trades(name, market)

    def rest(self, path: str, query: dict[str, str], now_us: int) -> Answer | None:
        return binance_rest.reply(self, path, query, now_us)

    @staticmethod
    def read(line: str) -> tuple[str, Frame] | None:
        combined = msgspec.json.decode(line, type=_Combined)
        symbol, _, channel = combined.stream.partition("@")
        data = bytes(combined.data).decode()
        if channel.startswith("depth"):
            return combined.stream, Frame(line, (Event(symbol, ORDERBOOK, None, line),))
        if channel == "trade":
            trade_id = msgspec.json.decode(combined.data, type=_Trade).t
        elif channel == "aggTrade":
            trade_id = msgspec.json.decode(combined.data, type=_Aggregate).a
        else:
            return None
        return combined.stream, Frame(line, (Event(symbol, TRADE, str(trade_id), data),))
