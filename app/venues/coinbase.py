"""Coinbase Exchange: `level2_batch`, `matches` and `heartbeat`.

Source: docs.cdp.coinbase.com, Exchange WebSocket overview and channels (2026). BTC-USD opens with a snapshot of more
than a megabyte, as there. One wrong product or channel refuses the whole request: the documentation does not say, and
this is the harder answer of the two.
"""

from __future__ import annotations

from hashlib import md5
from random import Random
from typing import Any

import msgspec

from app.venues import coinbase_rest
from app.venues.coinbase_rest import writers
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
from app.venues.figures import pairs, rfc3339
from app.venues.instruments import Instrument, listing
from app.venues.market import BID, Market, Step
from app.venues.tape import Trade

CHANNELS = ("level2_batch", "matches", "heartbeat")
#: Channels that have needed a login since 2023.
GUARDED = ("level2", "level3", "full")
LOGIN = (
    "level2, level3, and full channels now require authentication. "
    "https://docs.cloud.coinbase.com/exchange/docs/websocket-auth"
)
#: A connection that has not subscribed after so long is closed.
SUBSCRIBE_WITHIN_US = 5_000_000
#: Levels a side of the first product of the listing, and of all others.
DEEP_LEVELS = 25_000
HEARTBEAT_US = 1_000_000


class Level2(Topic):
    """The whole book once, then batches of changes. Nothing numbers them."""

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, market)
        self.price, self.size = writers(market.instrument)

    def opening(self, now_us: int) -> list[Frame]:
        asks, bids = (
            pairs(side.top(len(side.keys)), self.price, self.size) for side in (self.market.asks, self.market.bids)
        )
        text = f'{{"type":"snapshot","product_id":"{self.symbol}","asks":[{asks}],"bids":[{bids}]}}'
        return [Frame(text, (Event(self.symbol, ORDERBOOK, None, text),))]

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        if not step.changes:
            return []
        changes = ",".join(
            [
                f'["{"buy" if side == BID else "sell"}","{self.price(price)}","{self.size(size)}"]'
                for side, price, size, _ in step.changes
            ]
        )
        text = f'{{"type":"l2update","product_id":"{self.symbol}","changes":[{changes}],"time":"{rfc3339(now_us)}"}}'
        return [Frame(text, (Event(self.symbol, ORDERBOOK, None, text),))]


class Matches(Topic):
    """The last trade before the subscription, then each trade. `trade_id` counts one by one; `side` is the maker's."""

    feed = TRADE

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, market)
        self.price, self.size = writers(market.instrument)

    def opening(self, now_us: int) -> list[Frame]:
        return [self._frame("last_match", self.market.last_trade)]

    def advance(self, step: Step, now_us: int) -> list[Frame]:
        return [self._frame("match", trade) for trade in step.trades]

    def _frame(self, kind: str, trade: Trade) -> Frame:
        text = (
            f'{{"type":"{kind}","trade_id":{trade.id},"maker_order_id":"{self._order(trade, "maker")}",'
            f'"taker_order_id":"{self._order(trade, "taker")}","side":"{"sell" if trade.taker_buys else "buy"}",'
            f'"size":"{self.size(trade.size)}","price":"{self.price(trade.price)}","product_id":"{self.symbol}",'
            f'"sequence":{trade.sequence},"time":"{rfc3339(trade.time_us)}"}}'
        )
        return Frame(text, (Event(self.symbol, TRADE, str(trade.id), text),))

    def _order(self, trade: Trade, party: str) -> str:
        """An order id in the shape of a UUID, the same on every connection."""
        digits = md5(f"{self.symbol}{trade.id}{party}".encode(), usedforsecurity=False).hexdigest()
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-9{digits[17:20]}-{digits[20:]}"


class Heartbeat(Topic):
    """Once a second, with the last trade's id: a dropped match shows even in a quiet market."""

    feed = ""

    def __init__(self, name: str, market: Market) -> None:
        super().__init__(name, market)
        self.due_us = 0

    def quiet(self, now_us: int) -> list[Frame]:
        if now_us < self.due_us:
            return []
        self.due_us = now_us + HEARTBEAT_US
        trade = self.market.last_trade
        return [
            Frame(
                f'{{"type":"heartbeat","last_trade_id":{trade.id},"product_id":"{self.symbol}",'
                f'"sequence":{trade.sequence},"time":"{rfc3339(now_us)}"}}'
            )
        ]


def refused(reason: str, message: str = "Failed to subscribe") -> list[Action]:
    """The venue's error frame."""
    return [say(encoded({"type": "error", "message": message, "reason": reason}))]


class CoinbaseSession(Session):
    """subscribe and unsubscribe; each is answered with everything that is subscribed by then."""

    def __init__(self, venue: Venue, number: int, now_us: int) -> None:
        super().__init__(venue, number, now_us)
        self.silent = True

    def due(self, now_us: int, heard_us: int, pushed_us: int) -> list[Action]:
        if self.silent and now_us - self.opened_us >= SUBSCRIBE_WITHIN_US * self.venue.patience:
            self.silent = False
            return [Close(1008, "no subscription within 5 seconds")]
        return []

    def received(self, text: str, now_us: int) -> list[Action]:
        request = decoded(text)
        if not isinstance(request, dict):
            return [say('{"type":"error","message":"Malformed JSON"}')]
        if request.get("type") not in ("subscribe", "unsubscribe"):
            return [say('{"type":"error","message":"Type has to be either subscribe or unsubscribe"}')]
        wanted = self._wanted(request)
        if not wanted:
            return refused("No channels provided")
        for channel, product in wanted:
            if channel in GUARDED:
                return refused(LOGIN)
            if channel not in CHANNELS:
                return refused(f"{channel} is not a valid channel")
            if not self.venue.knows(product):
                return refused(f"{product} is not a valid product")
        self.silent = False
        change = self.join if request["type"] == "subscribe" else self.leave
        actions = [action for channel, product in wanted for action in change(f"{channel}:{product}")]
        return [say(self._subscriptions()), *actions]

    def _wanted(self, request: dict[str, Any]) -> list[tuple[str, str]]:
        """(channel, product) for each; a channel may be a name or an object with products of its own."""
        channels, products = request.get("channels"), request.get("product_ids") or []
        wanted = []
        for channel in channels if isinstance(channels, list) else []:
            own = channel if isinstance(channel, dict) else {"name": channel}
            ids = own.get("product_ids") or products
            wanted += [(str(own.get("name")), str(i)) for i in (ids if isinstance(ids, list) else []) or [""]]
        return wanted

    def _subscriptions(self) -> str:
        channels: dict[str, list[str]] = {}
        for topic in self.topics:
            channel, _, product = topic.partition(":")
            channels.setdefault(channel, []).append(product)
        listed = [{"name": name, "product_ids": products} for name, products in channels.items()]
        return encoded({"type": "subscriptions", "channels": listed})


class _Typed(msgspec.Struct):
    type: str = ""
    product_id: str = ""
    trade_id: int = 0


class Coinbase(Venue):
    """Canonical symbols are product ids, such as BTC-USD."""

    name = "coinbase"
    ws_paths = ("", "/")
    symbols_path = coinbase_rest.SYMBOLS

    @classmethod
    def listing(cls) -> dict[str, Instrument]:
        return {i.symbol: i for i in listing("{base}-{quote}", "USD", 8)}

    def session(self, number: int, query: dict[str, str], now_us: int) -> Session:
        return CoinbaseSession(self, number, now_us)

    def make_market(self, instrument: Instrument, random: Random, now_us: int) -> Market:
        deep = instrument.symbol == next(iter(self.instruments))
        return Market(instrument, random, DEEP_LEVELS if deep else self.levels, self.first_id, now_us)

    def make_topic(self, name: str, now_us: int) -> Topic | None:
        channel, _, product = name.partition(":")
        made = {"level2_batch": Level2, "matches": Matches, "heartbeat": Heartbeat}.get(channel)
        if not made or product not in self.instruments:
            return None
        return made(name, self.market(product, now_us))

    def rest(self, path: str, query: dict[str, str], now_us: int) -> Answer | None:
        return coinbase_rest.reply(self, path, query, now_us)

    @staticmethod
    def read(line: str) -> tuple[str, Frame] | None:
        frame = msgspec.json.decode(line, type=_Typed)
        if frame.type in ("snapshot", "l2update"):
            event = Event(frame.product_id, ORDERBOOK, None, line)
            return f"level2_batch:{frame.product_id}", Frame(line, (event,))
        if frame.type in ("last_match", "match"):
            event = Event(frame.product_id, TRADE, str(frame.trade_id), line)
            return f"matches:{frame.product_id}", Frame(line, (event,))
        return None
