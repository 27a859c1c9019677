"""Bybit V5 spot: `orderbook.{1,50,200,1000}` and `publicTrade`.

Source: bybit-exchange/docs, v5/websocket/public/orderbook and trade (2026-07), and answers seen on the wire. One wrong
topic refuses its whole request; the documentation does not say, and this is the harder answer of the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from app.venues import bybit_rest
from app.venues.bybit_rest import FIRST_TRADE_ID
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
from app.venues.figures import pairs, trimmed
from app.venues.instruments import Instrument, listing
from app.venues.market import ASK, BID, Market, Step, Window

TOPIC = re.compile(r"(?:orderbook\.(?P<depth>1|50|200|1000)|publicTrade)\.(?P<symbol>[^.]+)")
ARGS_PER_REQUEST = 10
IDLE_US = 600_000_000
#: `orderbook.1` repeats itself after so long without a change.
REPEAT_US = 3_000_000


class Orderbook(Topic):
    """A snapshot, then deltas; `u` counts one by one for each depth, `seq` is common to all depths of a symbol.

    `orderbook.1` has snapshots only, and repeats an unchanged one under the same `u`.
    """

    restarts = True

    def __init__(self, name: str, market: Market, depth: int, first_u: int) -> None:
        super().__init__(name, market)
        self.depth = depth
        self.price, self.size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)
        self.asks, self.bids = Window(market.asks, depth), Window(market.bids, depth)
        self.u = first_u
        self.changed_us = self.sent_us = 0

    def begin(self, now_us: int) -> None:
        self.asks.begin()
        self.bids.begin()
        self.u += 1
        self.changed_us = self.sent_us = now_us

    def opening(self, now_us: int) -> list[Frame]:
        return [self._snapshot(now_us)]

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        bids, asks = ([c for c in step.changes if c.side == side] for side in (BID, ASK))
        changed = self.bids.move(bids), self.asks.move(asks)
        if not any(changed):
            return []
        self.u += 1
        self.changed_us = self.sent_us = now_us
        return [self._snapshot(now_us) if self.depth == 1 else self._frame("delta", *changed, now_us)]

    def quiet(self, now_us: int) -> list[Frame]:
        if self.depth != 1 or now_us - self.sent_us < REPEAT_US:
            return []
        self.sent_us = now_us
        return [self._snapshot(now_us)]

    def restarted(self, now_us: int) -> list[Frame]:
        """A snapshot with `u` 1, from which the deltas count on."""
        self.u = 1
        self.changed_us = self.sent_us = now_us
        return [self._snapshot(now_us)]

    def _snapshot(self, now_us: int) -> Frame:
        return self._frame("snapshot", self.bids.shown(), self.asks.shown(), now_us)

    def _frame(self, kind: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]], now_us: int) -> Frame:
        text = (
            f'{{"topic":"{self.name}","ts":{now_us // 1000},"type":"{kind}","data":{{"s":"{self.symbol}",'
            f'"b":[{pairs(bids, self.price, self.size)}],"a":[{pairs(asks, self.price, self.size)}],'
            f'"u":{self.u},"seq":{self.market.sequence}}},"cts":{self.changed_us // 1000}}}'
        )
        return Frame(text, (Event(self.symbol, ORDERBOOK, None, text),))


class PublicTrade(Topic):
    """Several trades a frame; ids grow and skip. `type` is always `snapshot`."""

    feed = TRADE

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, market)
        self.price, self.size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        ids = [str(FIRST_TRADE_ID + trade.id) for trade in step.trades]
        rows = [
            f'{{"i":"{trade_id}","T":{trade.time_us // 1000},"p":"{self.price(trade.price)}",'
            f'"v":"{self.size(trade.size)}","S":"{"Buy" if trade.taker_buys else "Sell"}","seq":{trade.sequence},'
            f'"s":"{self.symbol}","BT":false,"RPI":false}}'
            for trade_id, trade in zip(ids, step.trades, strict=True)
        ]
        if not rows:
            return []
        events = tuple(Event(self.symbol, TRADE, trade_id, row) for trade_id, row in zip(ids, rows, strict=True))
        text = f'{{"topic":"{self.name}","ts":{now_us // 1000},"type":"snapshot","data":[{",".join(rows)}]}}'
        return [Frame(text, events)]


class BybitSession(Session):
    """subscribe and unsubscribe, answered with the request's `req_id`, and `ping`."""

    def __init__(self, venue: Venue, number: int, now_us: int) -> None:
        super().__init__(venue, number, now_us)
        self.connection_id = f"{self.random.getrandbits(64):016x}-{self.random.getrandbits(16):04x}"
        self.heard_us = now_us

    def due(self, now_us: int, heard_us: int, pushed_us: int) -> list[Action]:
        if now_us - max(self.heard_us, pushed_us) >= IDLE_US * self.venue.patience:
            return [Close(1000, "no ping in 10 minutes")]
        return []

    def received(self, text: str, now_us: int) -> list[Action]:
        self.heard_us = now_us
        request = decoded(text)
        op = request.get("op") if isinstance(request, dict) else None
        if op == "ping":
            return [self._answer(request, True, "pong")]
        if op not in ("subscribe", "unsubscribe"):
            return [self._answer(request, False, "error:request format invalid")]
        topics = request.get("args")
        if not isinstance(topics, list) or not topics:
            return [self._answer(request, False, "error:args is empty")]
        if len(topics) > ARGS_PER_REQUEST:
            return [self._answer(request, False, f"args size >{ARGS_PER_REQUEST}")]
        for topic in map(str, topics):
            known = TOPIC.fullmatch(topic)
            if not known:
                return [self._answer(request, False, f"error:handler not found,topic:{topic}")]
            if not self.venue.knows(known["symbol"]):
                # Seen on the wire: this refusal has no req_id.
                return [self._answer({"op": op}, False, f"Invalid symbol :[{topic}]")]
            if op == "subscribe" and topic in self.topics:
                return [self._answer(request, False, f"error:already subscribed,topic:{topic}")]
        change = self.join if op == "subscribe" else self.leave
        ack = self._answer(request, True, "subscribe" if op == "subscribe" else "")
        return [ack, *(action for topic in topics for action in change(str(topic)))]

    def _answer(self, request: Any, success: bool, words: str) -> Action:
        request = request if isinstance(request, dict) else {}
        said = {"success": success, "ret_msg": words, "conn_id": self.connection_id}
        if "req_id" in request:
            said["req_id"] = request["req_id"]
        return say(encoded(said | {"op": request.get("op", "")}))


class _Pushed(msgspec.Struct):
    topic: str
    data: msgspec.Raw


class _TradeRow(msgspec.Struct):
    i: str


class Bybit(Venue):
    """Canonical symbols are upper case without a separator, such as BTCUSDT."""

    name = "bybit"
    ws_paths = ("/v5/public/spot",)
    ws_base = "/v5/public/spot"
    symbols_path = "/v5/market/instruments-info?category=spot"
    levels = 1000
    #: The ids that a trade stands for are not shown here: they are what makes ids skip.
    max_count = 4

    @classmethod
    def listing(cls) -> dict[str, Instrument]:
        return {i.symbol: i for i in listing("{base}{quote}", "USDT", 6)}

    def session(self, number: int, query: dict[str, str], now_us: int) -> Session:
        return BybitSession(self, number, now_us)

    def steps(self, market: Market, now_us: int) -> Iterator[Step]:
        yield market.step(market.random.randint(1, 5), now_us)

    def make_topic(self, name: str, now_us: int) -> Topic | None:
        known = TOPIC.fullmatch(name)
        if not known or known["symbol"] not in self.instruments:
            return None
        market = self.market(known["symbol"], now_us)
        if known["depth"]:
            depth = int(known["depth"])
            return Orderbook(name, market, depth, self.first_id + 1000 * depth)
        return PublicTrade(name, market)

    def rest(self, path: str, query: dict[str, str], now_us: int) -> Answer | None:
        return bybit_rest.reply(self, path, query, now_us)

    @staticmethod
    def read(line: str) -> tuple[str, Frame] | None:
        pushed = msgspec.json.decode(line, type=_Pushed)
        channel, _, rest = pushed.topic.partition(".")
        symbol = rest.rpartition(".")[2]
        if channel == "orderbook":
            return pushed.topic, Frame(line, (Event(symbol, ORDERBOOK, None, line),))
        if channel != "publicTrade":
            return None
        events = [
            Event(symbol, TRADE, msgspec.json.decode(row, type=_TradeRow).i, bytes(row).decode())
            for row in msgspec.json.decode(pushed.data, type=list[msgspec.Raw])
        ]
        return pushed.topic, Frame(line, tuple(events))
