"""Coinbase Exchange: the public feed `ws-feed`, not the Advanced Trade feed (docs/exchanges.md tells them apart).

| `type`       | channel      | role                              | identity | continuity           |
| ------------ | ------------ | --------------------------------- | -------- | -------------------- |
| `snapshot`   | level2_batch | the whole book, on subscription   | none     | starts anew          |
| `l2update`   | level2_batch | changes of the book               | none     | cannot be told       |
| `match`      | matches      | one trade                         | trade_id | trade_id == last + 1 |
| `last_match` | matches      | the trade before the subscription | trade_id | as `match`           |
| `heartbeat`  | heartbeat    | once a second and product         |          |                      |

`time` of an l2update identifies nothing: many updates share one. `side` of a match is the side of the maker.

Source: docs.cdp.coinbase.com, Exchange WebSocket overview, channels and rate limits (2026-06).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges.base import (
    Ack,
    Decoded,
    Decoder,
    Exchange,
    Heartbeat,
    Limits,
    Message,
    Notice,
    Pace,
    Rejected,
    Request,
    Subscription,
)
from app.exchanges.wire import DETAIL_CHARS, Int64, parse, rfc3339_us
from app.model import ORDERBOOK, TRADE

_SYMBOL = re.compile(r"[A-Za-z0-9]{1,20}-[A-Za-z0-9]{1,20}")
_WORD = re.compile(r"[A-Za-z0-9_-]+")


class _Snapshot(msgspec.Struct, gc=False, tag_field="type", tag="snapshot"):
    """`{"type":"snapshot","product_id":"BTC-USD","bids":[["10101.10","0.45"]],"asks":[["10102.55","0.57"]]}`"""

    product_id: str
    bids: msgspec.Raw
    asks: msgspec.Raw
    time: str | None = None


class _Update(msgspec.Struct, gc=False, tag_field="type", tag="l2update"):
    """`{"type":"l2update","product_id":"BTC-USD","changes":[["buy","10101.80","0.16"]],"time":"2022-08-04T15:25:05.010758Z"}`"""

    product_id: str
    changes: msgspec.Raw
    time: str | None = None


class _Match(msgspec.Struct, gc=False, tag_field="type", tag="match"):
    """`{"type":"match","trade_id":10,"sequence":50,"maker_order_id":"ac92...","taker_order_id":"132f...",
    "time":"2014-11-07T08:19:27.028459Z","product_id":"BTC-USD","size":"5.23512","price":"400.23","side":"sell"}`"""

    product_id: str
    trade_id: Int64
    time: str | None = None


class _LastMatch(_Match, gc=False, tag_field="type", tag="last_match"):
    pass


class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat"):
    """`{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}`"""


class _Channel(msgspec.Struct):
    name: str
    product_ids: list[str] | None = None


class _Subscriptions(msgspec.Struct, tag_field="type", tag="subscriptions"):
    """`{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD"]}]}`: everything so far."""

    channels: list[_Channel]


class _Error(msgspec.Struct, tag_field="type", tag="error"):
    """`{"type":"error","message":"Failed to subscribe","reason":"FOO-USD is not a valid product"}`"""

    message: str
    reason: str = ""


class _Product(msgspec.Struct):
    id: str
    status: str
    trading_disabled: bool = False


_FRAME = msgspec.json.Decoder(_Snapshot | _Update | _Match | _LastMatch | _Heartbeat | _Subscriptions | _Error)
_PRODUCTS = msgspec.json.Decoder(list[_Product])

_HEARTBEAT = (Notice("heartbeat"),)


class CoinbaseDecoder(Decoder):
    """Knows a frame by its `type`."""

    def __init__(self, subscription: Subscription) -> None:
        #: By product id, the symbol as the configuration has it.
        self._symbols = {symbol: symbol for symbol in subscription.symbols}
        self._feeds = subscription.feeds
        self._books = self._symbols if ORDERBOOK in subscription.feeds else {}
        self._trades = self._symbols if TRADE in subscription.feeds else {}

    def decode(self, frame: str) -> Sequence[Message]:
        message = parse(_FRAME, frame)
        if isinstance(message, _Update | _Snapshot):
            symbol = _asked(self._books, message.product_id)
            return (Decoded(symbol, ORDERBOOK, "", rfc3339_us(message.time), frame),)
        if isinstance(message, _Match):
            symbol = _asked(self._trades, message.product_id)
            last = message.trade_id
            return (Decoded(symbol, TRADE, str(last), rfc3339_us(message.time), frame, last - 1, last, True),)
        if isinstance(message, _Heartbeat):
            return _HEARTBEAT
        if isinstance(message, _Subscriptions):
            return (self._accepted(message.channels),)
        return (self._refused(message),)

    def _accepted(self, channels: Iterable[_Channel]) -> Ack | Notice:
        listed = ((product, _feed(channel.name)) for channel in channels for product in channel.product_ids or ())
        feeds = tuple((p, feed) for p, feed in listed if p in self._symbols and feed in self._feeds)
        # An Ack without feeds would speak for its request; this answer speaks for what it lists, here nothing of ours.
        return Ack("", feeds) if feeds else Notice("status", "no product of ours is subscribed")

    def _refused(self, error: _Error) -> Rejected:
        """The refusal, with the feeds its words name: a product means its feeds, a channel the channel's feed.

        Nothing in it tells which request it answers.
        """
        sentence = f"{error.message}: {error.reason.strip()}" if error.reason else error.message
        words = _WORD.findall(sentence)
        # Only the book's channel is looked for: `matches` is also a word of prose.
        books_only = any(word.startswith("level2") for word in words)
        feeds = [feed for feed in self._feeds if feed == ORDERBOOK or not books_only]
        symbols = [symbol for symbol in self._symbols if symbol in words]
        if books_only and not symbols:
            symbols = list(self._symbols)
        return Rejected("", sentence, tuple((symbol, feed) for symbol in symbols for feed in feeds))


def _asked(symbols: dict[str, str], product_id: str) -> str:
    """The symbol of a product, out of those whose feed was asked for. Raises: FrameRejected."""
    symbol = symbols.get(product_id)
    if symbol is None:
        raise FrameRejected("unexpected_symbol" if symbols else "unexpected_channel", product_id[:DETAIL_CHARS])
    return symbol


def _feed(channel: str) -> str:
    """The data type of a channel, "" for others. The answer to `level2_batch` may name it otherwise (`level2_50`)."""
    if channel.startswith("level2"):
        return ORDERBOOK
    return TRADE if channel == "matches" else ""


class Coinbase(Exchange):
    """The public channels. `level2`, unlike `level2_batch`, has asked for a key since 2023: refused without one."""

    name: ClassVar[str] = "coinbase"
    ws_url: ClassVar[str] = "wss://ws-feed.exchange.coinbase.com"
    rest_url: ClassVar[str] = "https://api.exchange.coinbase.com"
    orderbook_channels: ClassVar[tuple[str, ...]] = ("level2_batch", "level2")
    trade_channels: ClassVar[tuple[str, ...]] = ("matches",)
    #: Our own figures, well within the venue's (100 messages a second and address): a book begins with a snapshot of
    #: megabytes, and a reader that falls behind is cut. The venue cuts a connection that subscribes to nothing within
    #: 5 s; it documents no other idle limit, and 60 s is that of its Advanced feed.
    limits: ClassVar[Limits] = Limits(
        markets_per_connection=20, messages_per_s=8, idle_timeout_s=60, connects=Pace(4.0, 8), rest=Pace(5.0, 10)
    )
    #: Not required. A ping every 20 s kept connections that died without.
    heartbeat: ClassVar[Heartbeat | None] = Heartbeat(every_s=20, frame=None)
    symbols_path: ClassVar[str] = "/products"
    symbol_example: ClassVar[str] = "upper case with a dash, such as BTC-USD"

    def canonical(self, symbol: str) -> str:
        if not _SYMBOL.fullmatch(symbol):
            raise InvalidSymbol(self.name, symbol, self.symbol_example)
        return symbol.upper()

    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        return ws_url

    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        """One request a feed: one bad product, or a channel that wants a key, may fail everything in its request.

        Trades go first, with the heartbeat, so that the first answers do not wait behind a large snapshot.
        """
        trades_first = sorted(subscription.feeds, key=lambda feed: feed != TRADE)
        return [
            _request("subscribe", subscription, symbol, feed, heartbeat=feed == trades_first[0])
            for symbol in subscription.symbols
            for feed in trades_first
        ]

    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        leave = _request("unsubscribe", subscription, symbol, feed)
        return [msgspec.structs.replace(leave, feeds=()), _request("subscribe", subscription, symbol, feed)]

    def decoder(self, subscription: Subscription) -> Decoder:
        return CoinbaseDecoder(subscription)

    def dense_span(self, sequence_id: str, data: str) -> tuple[int, int] | None:
        return int(sequence_id), int(sequence_id)

    def listed(self, body: bytes) -> frozenset[str]:
        products = parse(_PRODUCTS, body)
        tradable = (p.id for p in products if p.status == "online" and not p.trading_disabled)
        return frozenset(id.upper() for id in tradable if _SYMBOL.fullmatch(id))


def _request(kind: str, subscription: Subscription, symbol: str, feed: str, *, heartbeat: bool = False) -> Request:
    channel = subscription.orderbook_channel if feed == ORDERBOOK else subscription.trade_channel
    channels = [channel, "heartbeat"] if heartbeat else [channel]
    frame = msgspec.json.encode({"type": kind, "product_ids": [symbol], "channels": channels}).decode()
    return Request("", frame, ((symbol, feed),))
