"""Coinbase Advanced Trade: the other public feed of Coinbase, chosen by `[exchanges.coinbase] source = "advanced"`.

| `channel`       | asked for as    | role                                     | identity | continuity           |
| --------------- | --------------- | ---------------------------------------- | -------- | -------------------- |
| `l2_data`       | `level2`        | snapshot or changes of one or more books | none     | by `sequence_num`    |
| `market_trades` | `market_trades` | trades, the newest first                 | trade_id | trade_id == last + 1 |
| `heartbeats`    | `heartbeats`    | once a second, keeps the channels open   |          |                      |
| `subscriptions` |                 | answer: everything subscribed so far     |          |                      |

`sequence_num` counts every frame of a connection, answers and heartbeats too, and starts over on the next one: it is no
identity, and a jump may be a hole in any book. Trade ids are those of the Exchange feed. `side` of a trade is the maker's.
Asked for a product in USDC, the public channels deliver the one in USD.

Source: docs.cdp.coinbase.com, Advanced Trade WebSocket overview, channels, authentication, rate limits (2026-06), and
frames captured in September 2026; docs/exchanges.md grades each fact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal

import msgspec

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges import coinbase_jwt
from app.exchanges.base import (
    Ack,
    Counted,
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
    Signer,
    Subscription,
)
from app.exchanges.wire import DETAIL_CHARS, Int64, parse, raw_text, rfc3339_us
from app.model import ORDERBOOK, TRADE

_SYMBOL = re.compile(r"[A-Za-z0-9]{1,20}-[A-Za-z0-9]{1,20}")
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_BOOKS = "l2_data"
#: The products in USDC that have a book of their own.
_OWN_BOOKS = frozenset({"USDT-USDC", "EURC-USDC"})


class _BookEvent(msgspec.Struct, gc=False):
    type: Literal["snapshot", "update"]
    product_id: str
    updates: msgspec.Raw


class _Books(msgspec.Struct, gc=False, tag_field="channel", tag=_BOOKS):
    """`{"channel":"l2_data","timestamp":"2026-09-30T02:39:54.062764371Z","sequence_num":24,"events":[{"type":"update",
    "product_id":"ETH-USD","updates":[{"side":"bid","event_time":"...","price_level":"2663.09","new_quantity":"0.28"}]}]}`"""

    sequence_num: Int64
    events: list[_BookEvent]
    timestamp: str | None = None


class _TradesEvent(msgspec.Struct, gc=False):
    type: Literal["snapshot", "update"]
    trades: list[msgspec.Raw]


class _Trades(msgspec.Struct, gc=False, tag_field="channel", tag="market_trades"):
    """`{"channel":"market_trades","timestamp":"...","sequence_num":22,"events":[{"type":"update","trades":[...]}]}`"""

    sequence_num: Int64
    events: list[_TradesEvent]


class _Trade(msgspec.Struct, gc=False):
    """`{"product_id":"BTC-USD","trade_id":"1100253488","price":"83277.26","size":"0.00058346",
    "time":"2026-09-30T02:39:53.977543Z","side":"SELL"}`"""

    product_id: str
    trade_id: Int64
    time: str | None = None


class _Heartbeats(msgspec.Struct, tag_field="channel", tag="heartbeats"):
    """`{"channel":"heartbeats","timestamp":"...","sequence_num":29,"events":[{"current_time":"...","heartbeat_counter":12240}]}`"""

    sequence_num: Int64


class _SubscriptionsEvent(msgspec.Struct):
    subscriptions: dict[str, list[str]]


class _Subscriptions(msgspec.Struct, tag_field="channel", tag="subscriptions"):
    """`{"channel":"subscriptions","timestamp":"...","sequence_num":1,"events":[{"subscriptions":{"level2":["BTC-USD"]}}]}`"""

    sequence_num: Int64
    events: list[_SubscriptionsEvent]


class _Envelope(msgspec.Struct):
    """What is needed of a frame that is none of these. `{"type":"error","message":"failure to subscribe"}`"""

    channel: str = ""
    sequence_num: Int64 | None = None
    type: str = ""
    message: str = ""
    reason: str = ""


class _Product(msgspec.Struct):
    product_id: str
    status: str = ""
    trading_disabled: bool = False
    #: The products that deliver this one.
    alias_to: list[str] | None = None


class _Products(msgspec.Struct):
    products: list[_Product]
    num_products: int | None = None


_Counted = _Books | _Trades | _Heartbeats | _Subscriptions

_FRAME = msgspec.json.Decoder(_Counted)
# Not strict: the id is a string of digits.
_TRADE = msgspec.json.Decoder(_Trade, strict=False)
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_PRODUCTS = msgspec.json.Decoder(_Products)


class CoinbaseAdvancedDecoder(Decoder):
    """Knows a frame by its `channel`, and a product also by the name under which the venue delivers it."""

    def __init__(self, subscription: Subscription) -> None:
        #: By product id, the symbol as the configuration has it; a product of our own name is itself.
        self._symbols = {_delivered(symbol): symbol for symbol in subscription.symbols}
        self._symbols.update((symbol, symbol) for symbol in subscription.symbols)
        self._feeds = {
            channel: feed
            for channel, feed in ((subscription.orderbook_channel, ORDERBOOK), (subscription.trade_channel, TRADE))
            if feed in subscription.feeds
        }
        self._books = self._symbols if ORDERBOOK in subscription.feeds else {}
        self._trades = self._symbols if TRADE in subscription.feeds else {}

    def decode(self, frame: str) -> Sequence[Message]:
        try:
            message = parse(_FRAME, frame)
        except FrameRejected as rejected:
            return _unknown(frame, rejected, self._refused)
        try:
            return [Counted(message.sequence_num), *self._messages(message, frame)]
        except FrameRejected as rejected:
            rejected.number = message.sequence_num
            raise

    def _messages(self, message: _Counted, frame: str) -> Iterable[Message]:
        if isinstance(message, _Books):
            return self._changed(message, frame)
        if isinstance(message, _Trades):
            return self._traded(message)
        if isinstance(message, _Heartbeats):
            return (Notice("heartbeat"),)
        return (self._accepted(message.events),)

    def _changed(self, message: _Books, frame: str) -> list[Message]:
        """One event for each product of the frame, the whole frame its text. A snapshot among them starts the book anew.

        `last` says of a snapshot that it is one; updates follow each other by the connection's number alone.
        """
        anew: dict[str, int | None] = {}
        for event in message.events:
            symbol = _asked(self._books, event.product_id)
            if event.type == "snapshot":
                anew[symbol] = message.sequence_num
            else:
                anew.setdefault(symbol, None)
        if not anew:
            raise FrameRejected("unexpected_shape", "no event")
        sent_us = rfc3339_us(message.timestamp)
        return [Decoded(symbol, ORDERBOOK, "", sent_us, frame, None, last) for symbol, last in anew.items()]

    def _traded(self, message: _Trades) -> list[Message]:
        """Every trade of the frame, the oldest first: the venue sends the newest first."""
        if not self._trades:
            raise FrameRejected("unexpected_channel", "market_trades")
        if not message.events:
            raise FrameRejected("unexpected_shape", "no event")
        trades: list[Decoded] = []
        for event in message.events:
            for raw in event.trades:
                trade = parse(_TRADE, raw)
                symbol, last = _asked(self._trades, trade.product_id), trade.trade_id
                text = raw_text(raw)
                trades.append(Decoded(symbol, TRADE, str(last), rfc3339_us(trade.time), text, last - 1, last, True))
        trades.sort(key=_id)
        return [*trades] if trades else [Notice("status", "no trade yet")]

    def _accepted(self, events: Iterable[_SubscriptionsEvent]) -> Ack | Notice:
        listed = (
            (c, product) for event in events for c, products in event.subscriptions.items() for product in products
        )
        pairs = ((self._symbols.get(product), self._feeds.get(channel)) for channel, product in listed)
        feeds = tuple(dict.fromkeys((symbol, feed) for symbol, feed in pairs if symbol and feed))
        # An Ack without feeds would speak for its request; this answer speaks for what it lists, here nothing of ours.
        return Ack("", feeds) if feeds else Notice("status", "no product of ours is subscribed")

    def _refused(self, error: _Envelope) -> Rejected:
        """The refusal, with both feeds of the products its words name: it answers no request by id, and may name nothing."""
        sentence = f"{error.message}: {error.reason.strip()}" if error.reason else error.message
        named = [symbol for symbol in dict.fromkeys(self._symbols.values()) if symbol in _WORD.findall(sentence)]
        return Rejected("", sentence, tuple((symbol, feed) for symbol in named for feed in self._feeds.values()))


def _unknown(frame: str, rejected: FrameRejected, refused: Callable[[_Envelope], Rejected]) -> list[Message]:
    """The messages of a frame of no known shape: a refusal. Raises: FrameRejected for any other.

    It has its number, so that a new channel or a new kind of answer is not taken for a hole; but not where it may have
    changed a book, or cannot be read.
    """
    envelope = parse(_ENVELOPE, frame)
    if not envelope.channel and envelope.type == "error":
        number = envelope.sequence_num
        return [*(() if number is None else (Counted(number),)), refused(envelope)]
    if envelope.channel != _BOOKS:
        rejected.number = envelope.sequence_num
    raise rejected


def _asked(symbols: dict[str, str], product_id: str) -> str:
    """The symbol of a product, out of those whose feed was asked for. Raises: FrameRejected."""
    symbol = symbols.get(product_id)
    if symbol is None:
        raise FrameRejected("unexpected_symbol" if symbols else "unexpected_channel", product_id[:DETAIL_CHARS])
    return symbol


def _id(trade: Decoded) -> int:
    return trade.last or 0


def _delivered(symbol: str) -> str:
    return symbol.removesuffix("C") if symbol.endswith("-USDC") and symbol not in _OWN_BOOKS else symbol


class CoinbaseAdvanced(Exchange):
    """Markets and keys are those of `coinbase`: the two feeds are two ways to the same trades."""

    name: ClassVar[str] = "coinbase"
    ws_url: ClassVar[str] = "wss://advanced-trade-ws.coinbase.com"
    rest_url: ClassVar[str] = "https://api.coinbase.com"
    orderbook_channels: ClassVar[tuple[str, ...]] = ("level2",)
    trade_channels: ClassVar[tuple[str, ...]] = ("market_trades",)
    #: 8 messages a second are allowed to an address without a key: two connections may begin together, and a full one says
    #: all it has to within 10 s. Channels without data close after 60 to 90 s. 20 markets, for the size of the snapshots.
    limits: ClassVar[Limits] = Limits(
        markets_per_connection=20, messages_per_s=4, idle_timeout_s=60, connects=Pace(0.2, 2), rest=Pace(5.0, 10)
    )
    #: Not required. A ping every 20 s kept connections that died without.
    heartbeat: ClassVar[Heartbeat | None] = Heartbeat(every_s=20, frame=None)
    symbols_path: ClassVar[str] = "/api/v3/brokerage/market/products?product_type=SPOT"
    symbol_example: ClassVar[str] = "upper case with a dash, such as BTC-USD"
    takes_key: ClassVar[bool] = True

    def canonical(self, symbol: str) -> str:
        if not _SYMBOL.fullmatch(symbol):
            raise InvalidSymbol(self.name, symbol, self.symbol_example)
        return symbol.upper()

    def delivered(self, symbol: str) -> str:
        return _delivered(symbol)

    def signer(self, api_key: str, api_secret: str) -> Signer:
        return coinbase_jwt.signer(api_key, api_secret)

    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        return ws_url

    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        """Heartbeats, then one request a feed: a message has one channel, and one bad product may fail all of its request.

        Trades go first, so that the first answers do not wait behind a large snapshot.
        """
        trades_first = sorted(subscription.feeds, key=lambda feed: feed != TRADE)
        return [
            Request("", '{"type":"subscribe","channel":"heartbeats"}', (), sign=True),
            *(
                _request("subscribe", subscription, symbol, feed)
                for symbol in subscription.symbols
                for feed in trades_first
            ),
        ]

    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        leave = _request("unsubscribe", subscription, symbol, feed)
        return [msgspec.structs.replace(leave, feeds=()), _request("subscribe", subscription, symbol, feed)]

    def decoder(self, subscription: Subscription) -> Decoder:
        return CoinbaseAdvancedDecoder(subscription)

    def dense_span(self, sequence_id: str, data: str) -> tuple[int, int] | None:
        return int(sequence_id), int(sequence_id)

    def listed(self, body: bytes) -> frozenset[str]:
        """Products online, and the products that deliver them. Raises: FrameRejected, also for a part of the list."""
        answer = parse(_PRODUCTS, body)
        if answer.num_products is not None and answer.num_products > len(answer.products):
            raise FrameRejected("incomplete", f"{len(answer.products)} of {answer.num_products} products")
        tradable = (p for p in answer.products if p.status == "online" and not p.trading_disabled)
        found = (id for product in tradable for id in (product.product_id, *(product.alias_to or ())))
        return frozenset(id.upper() for id in found if _SYMBOL.fullmatch(id))


def _request(kind: str, subscription: Subscription, symbol: str, feed: str) -> Request:
    channel = subscription.orderbook_channel if feed == ORDERBOOK else subscription.trade_channel
    frame = msgspec.json.encode({"type": kind, "product_ids": [symbol], "channel": channel}).decode()
    return Request("", frame, ((symbol, feed),), sign=True)
