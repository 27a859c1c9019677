"""OKX public channels: `books`, `books5`, `bbo-tbt` and `trades`.

Source: okx.com/docs-v5, WebSocket connect, subscribe, order book channel and trades channel (2026-07). `checksum` is
always 0, as it has been since 2026-06; the initial snapshot is sent, as it still was in 2026-09.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from app.venues import okx_rest
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
from app.venues.figures import trimmed
from app.venues.instruments import Instrument, listing
from app.venues.market import ASK, BID, Market, Step, Window
from app.venues.okx_rest import ladder

BOOKS_LEVELS = 400
IDLE_US = 30_000_000
#: Subscribe, unsubscribe and login requests of one connection in an hour.
REQUESTS_PER_H = 480
HOUR_US = 3_600_000_000
#: How far `seqId` falls back in a maintenance.
RESET = 10_000
#: A silent `books` channel repeats itself, empty, after so long.
KEEPALIVE_US = 60_000_000


class Books(Topic):
    """A snapshot of 400 levels, then what changed among them; `prevSeqId` is the `seqId` of the frame before."""

    restarts = True

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, market)
        self.price, self.size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)
        self.asks, self.bids = Window(market.asks, BOOKS_LEVELS), Window(market.bids, BOOKS_LEVELS)
        self.sequence = self.sent_us = 0

    def begin(self, now_us: int) -> None:
        self.asks.begin()
        self.bids.begin()
        self.sequence, self.sent_us = self.market.sequence, now_us

    def opening(self, now_us: int) -> list[Frame]:
        return [self._frame("snapshot", self.asks.shown(), self.bids.shown(), now_us, self.sequence, -1)]

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        asks, bids = ([c for c in step.changes if c.side == side] for side in (ASK, BID))
        changed = self.asks.move(asks), self.bids.move(bids)
        if not any(changed):
            return []
        before, self.sequence, self.sent_us = self.sequence, self.market.sequence, now_us
        return [self._frame("update", *changed, now_us, self.sequence, before)]

    def quiet(self, now_us: int) -> list[Frame]:
        if now_us - self.sent_us < KEEPALIVE_US:
            return []
        self.sent_us = now_us
        return [self._frame("update", [], [], now_us, self.sequence, self.sequence)]

    def restarted(self, now_us: int) -> list[Frame]:
        """The next update shows it: its `prevSeqId` matches, and its `seqId` is lower."""
        self.market.sequence = max(1, self.market.sequence - RESET)
        return []

    def _frame(
        self,
        action: str,
        asks: list[tuple[int, int]],
        bids: list[tuple[int, int]],
        now_us: int,
        sequence: int,
        before: int,
    ) -> Frame:
        text = (
            f'{{"arg":{{"channel":"books","instId":"{self.symbol}"}},"action":"{action}",'
            f'"data":[{{"asks":[{ladder(asks, self.price, self.size)}],'
            f'"bids":[{ladder(bids, self.price, self.size)}],"ts":"{now_us // 1000}","checksum":0,'
            f'"seqId":{sequence},"prevSeqId":{before}}}]}}'
        )
        return Frame(text, (Event(self.symbol, ORDERBOOK, None, text),))


class TopBooks(Topic):
    """`books5` (five levels) and `bbo-tbt` (one): the whole top whenever it changed."""

    def __init__(self, name: str, market: Market, levels: int) -> None:
        super().__init__(name, market)
        self.channel, self.levels = name.partition(":")[0], levels
        self.price, self.size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)
        self.shown = ""

    def opening(self, now_us: int) -> list[Frame]:
        self.shown = self._sides()
        return [self._frame(now_us)]

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        before, self.shown = self.shown, self._sides()
        return [self._frame(now_us)] if self.shown != before else []

    def _sides(self) -> str:
        asks, bids = (
            ladder(side.top(self.levels), self.price, self.size) for side in (self.market.asks, self.market.bids)
        )
        return f'"asks":[{asks}],"bids":[{bids}]'

    def _frame(self, now_us: int) -> Frame:
        instrument = f'"instId":"{self.symbol}",' if self.channel == "books5" else ""
        text = (
            f'{{"arg":{{"channel":"{self.channel}","instId":"{self.symbol}"}},'
            f'"data":[{{{self.shown},{instrument}"ts":"{now_us // 1000}","seqId":{self.market.sequence}}}]}}'
        )
        return Frame(text, (Event(self.symbol, ORDERBOOK, None, text),))


class Trades(Topic):
    """A row for what a taker order took at a price: it stands for the `count` ids up to `tradeId`."""

    feed = TRADE

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, market)
        self.price, self.size = trimmed(market.instrument.price_decimals), trimmed(market.instrument.size_decimals)

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        rows = [
            f'{{"instId":"{self.symbol}","tradeId":"{trade.id}","px":"{self.price(trade.price)}",'
            f'"sz":"{self.size(trade.size)}","side":"{"buy" if trade.taker_buys else "sell"}",'
            f'"ts":"{trade.time_us // 1000}","count":"{trade.executions}","source":"0","seqId":{trade.sequence}}}'
            for trade in step.trades
        ]
        if not rows:
            return []
        events = tuple(Event(self.symbol, TRADE, str(t.id), row) for t, row in zip(step.trades, rows, strict=True))
        return [Frame(f'{{"arg":{{"channel":"trades","instId":"{self.symbol}"}},"data":[{",".join(rows)}]}}', events)]


class OkxSession(Session):
    """subscribe and unsubscribe with one answer for each argument, and the text `ping`."""

    def __init__(self, venue: Venue, number: int, now_us: int) -> None:
        super().__init__(venue, number, now_us)
        self.connection_id = f"{self.random.getrandbits(32):08x}"
        self.heard_us = now_us
        self.requests: deque[int] = deque()

    def farewell(self, now_us: int) -> list[Action]:
        words = "The connection will soon be closed for a service upgrade. Please reconnect."
        return [say(encoded({"event": "notice", "code": "64008", "msg": words, "connId": self.connection_id}))]

    def due(self, now_us: int, heard_us: int, pushed_us: int) -> list[Action]:
        # Only messages count: a protocol PING is not the documented `ping`.
        if now_us - max(self.heard_us, pushed_us) >= IDLE_US * self.venue.patience:
            return [Close(4004, "No data received in 30s.")]
        return []

    def received(self, text: str, now_us: int) -> list[Action]:
        self.heard_us = now_us
        if text == "ping":
            return [say("pong")]
        request = decoded(text)
        if self._too_many(request, now_us):
            return [say(self._error(request, "60014", "Requests too frequent"))]
        args = request.get("args") if isinstance(request, dict) else None
        if not isinstance(args, list) or request.get("op") not in ("subscribe", "unsubscribe"):
            return [say(self._error(request, "60012", f"Invalid request: {text}"))]
        return [action for arg in args for action in self._one(request, arg)]

    def _too_many(self, request: Any, now_us: int) -> bool:
        if not isinstance(request, dict) or request.get("op") not in ("subscribe", "unsubscribe", "login"):
            return False
        while self.requests and self.requests[0] <= now_us - HOUR_US:
            self.requests.popleft()
        if len(self.requests) >= REQUESTS_PER_H:
            return True
        self.requests.append(now_us)
        return False

    def _one(self, request: dict[str, Any], arg: Any) -> list[Action]:
        known = arg if isinstance(arg, dict) else {}
        channel, instrument = str(known.get("channel")), str(known.get("instId"))
        if channel not in CHANNELS or not self.venue.knows(instrument):
            words = (
                f"Wrong URL or channel:{channel},instId:{instrument} doesn't exist. "
                "Please use the correct URL, channel and parameters referring to API document."
            )
            return [say(self._error(request, "60018", words))]
        change = self.join if request["op"] == "subscribe" else self.leave
        acknowledged = {"event": request["op"], "arg": arg, "connId": self.connection_id}
        return [say(encoded(self._numbered(request) | acknowledged)), *change(f"{channel}:{instrument}")]

    def _numbered(self, request: Any) -> dict[str, Any]:
        return {"id": request["id"]} if isinstance(request, dict) and "id" in request else {}

    def _error(self, request: Any, code: str, words: str) -> str:
        error = {"event": "error", "msg": words, "code": code, "connId": self.connection_id}
        return encoded(self._numbered(request) | error)


class _Arg(msgspec.Struct):
    channel: str
    instId: str


class _Pushed(msgspec.Struct):
    arg: _Arg
    data: list[msgspec.Raw] = []


class _TradeRow(msgspec.Struct):
    tradeId: str


CHANNELS = ("books", "books5", "bbo-tbt", "trades")


class Okx(Venue):
    """Canonical symbols are instrument ids, such as BTC-USDT."""

    name = "okx"
    ws_paths = ("/ws/v5/public",)
    ws_base = "/ws/v5/public"
    symbols_path = "/api/v5/public/instruments?instType=SPOT"
    max_count = 3

    @classmethod
    def listing(cls) -> dict[str, Instrument]:
        return {i.symbol: i for i in listing("{base}-{quote}", "USDT", 8)}

    def session(self, number: int, query: dict[str, str], now_us: int) -> Session:
        return OkxSession(self, number, now_us)

    def steps(self, market: Market, now_us: int) -> Iterator[Step]:
        yield market.step(market.random.randint(1, 5), now_us)

    def make_topic(self, name: str, now_us: int) -> Topic | None:
        channel, _, symbol = name.partition(":")
        if channel not in CHANNELS or symbol not in self.instruments:
            return None
        market = self.market(symbol, now_us)
        if channel == "books":
            return Books(name, market)
        if channel == "trades":
            return Trades(name, market)
        return TopBooks(name, market, 5 if channel == "books5" else 1)

    def rest(self, path: str, query: dict[str, str], now_us: int) -> Answer | None:
        return okx_rest.reply(self, path, query, now_us)

    @staticmethod
    def read(line: str) -> tuple[str, Frame] | None:
        pushed = msgspec.json.decode(line, type=_Pushed)
        topic = f"{pushed.arg.channel}:{pushed.arg.instId}"
        if not pushed.data or pushed.arg.channel not in CHANNELS:
            return None
        if pushed.arg.channel != "trades":
            return topic, Frame(line, (Event(pushed.arg.instId, ORDERBOOK, None, line),))
        events = [
            Event(
                pushed.arg.instId,
                TRADE,
                msgspec.json.decode(row, type=_TradeRow).tradeId,
                bytes(row).decode(),
            )
            for row in pushed.data
        ]
        return topic, Frame(line, tuple(events))
