"""Binance spot: one combined WebSocket, streams asked for by message.

| stream                       | role                    | identity                  | continuity       |
| ---------------------------- | ----------------------- | ------------------------- | ---------------- |
| `<s>@depth<5,10,20>[@100ms]` | top of the book, whole  | channel and lastUpdateId  | cannot be told   |
| `<s>@depth[@100ms]`          | changes of the book     | channel, U and u          | U == last u + 1  |
| `<s>@trade`                  | one trade               | t                         | t == last t + 1  |

Partial depth carries neither symbol nor time, so everything goes over the combined endpoint, whose `stream` has both
the symbol and the channel; and all book channels of a symbol count in one id space, so identities name the channel.

Source: github.com/binance/binance-spot-api-docs, web-socket-streams.md (2026-07); docs/exchanges.md grades each fact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges.base import (
    ASKED,
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
from app.exchanges.wire import DETAIL_CHARS, Int64, millis_us, parse, raw_text
from app.model import ORDERBOOK, TRADE

#: A client message of more than 4088 bytes is never answered and subscribes nothing; a hundred of the longest names
#: (20 + `@depth20@100ms` + quotes and comma) and the rest of the request stay below it.
#: Source: github.com/binance/binance-connector-rust/issues/27 (2024-12).
PARAMS_PER_REQUEST = 100

#: Levels of a book that is asked for. It costs 50 of the 6000 a minute that an address has; 5000 levels cost 250.
BOOK_LEVELS = 1000

#: `id` may be text of at most 36 characters; four are left for the number of the request.
NONCE_CHARS = 32

_SYMBOL = re.compile(r"[A-Za-z0-9]{2,20}")
_NAME_OPENS = '{"stream":"'
_SHUTDOWN_STREAM = "!serverShutdown"


class _Partial(msgspec.Struct, gc=False):
    """`{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}`"""

    lastUpdateId: Int64
    bids: msgspec.Raw
    asks: msgspec.Raw


class _Diff(msgspec.Struct, gc=False, tag_field="e", tag="depthUpdate"):
    """`{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[]}`"""

    E: Int64
    s: str
    U: Int64
    u: Int64
    b: msgspec.Raw
    a: msgspec.Raw


class _Trade(msgspec.Struct, gc=False, tag_field="e", tag="trade"):
    """`{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782136,"m":true,"M":true}`"""

    s: str
    t: Int64
    T: Int64


class _Error(msgspec.Struct):
    code: int
    msg: str = ""


class _Envelope(msgspec.Struct):
    """Every field by which a frame can be recognised: `{"stream":...,"data":...}`, or an answer without a stream."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: int | str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None
    code: int | None = None
    msg: str = ""
    e: str = ""


class _ListedSymbol(msgspec.Struct):
    symbol: str
    status: str


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_ListedSymbol]


_PARTIAL = msgspec.json.Decoder(_Partial)
_DIFF = msgspec.json.Decoder(_Diff)
_TRADE = msgspec.json.Decoder(_Trade)
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_EXCHANGE_INFO = msgspec.json.Decoder(_ExchangeInfo)


class _Stream(msgspec.Struct, frozen=True):
    """One subscribed stream and how its frames are read."""

    symbol: str
    #: The symbol as payloads spell it.
    payload_symbol: str
    channel: str
    #: How Binance begins every frame of the stream, up to and with the opening brace of the payload.
    opening: str
    #: (stream, frame, payload) -> the event.
    event: Callable[[_Stream, str, str], Decoded]


def _partial(stream: _Stream, frame: str, payload: str) -> Decoded:
    book = parse(_PARTIAL, payload)
    return Decoded(stream.symbol, ORDERBOOK, f"{stream.channel}-{book.lastUpdateId}", None, frame)


def _diff(stream: _Stream, frame: str, payload: str) -> Decoded:
    book = parse(_DIFF, payload)
    _same_symbol(stream, book.s)
    identity = f"{stream.channel}-{book.U}-{book.u}"
    return Decoded(stream.symbol, ORDERBOOK, identity, millis_us(book.E), frame, book.U - 1, book.u, True)


def _trade(stream: _Stream, frame: str, payload: str) -> Decoded:
    trade = parse(_TRADE, payload)
    _same_symbol(stream, trade.s)
    return Decoded(stream.symbol, TRADE, str(trade.t), millis_us(trade.T), payload, trade.t - 1, trade.t, True)


def _same_symbol(stream: _Stream, payload_symbol: str) -> None:
    if payload_symbol != stream.payload_symbol:
        raise FrameRejected("unexpected_symbol", f"{payload_symbol[:DETAIL_CHARS]} on a stream of {stream.symbol}")


class BinanceDecoder(Decoder):
    """Knows a frame by the name of its stream."""

    def __init__(self, subscription: Subscription) -> None:
        self._streams: dict[str, _Stream] = {}
        for symbol in subscription.symbols:
            for feed in subscription.feeds:
                channel = _channel(subscription, feed)
                event = _trade if feed == TRADE else _diff if _is_diff(channel) else _partial
                name = f"{symbol}@{channel}"
                opening = f'{_NAME_OPENS}{name}","data":{{'
                self._streams[name] = _Stream(symbol, symbol.upper(), channel, opening, event)

    def decode(self, frame: str) -> Sequence[Message]:
        # A frame in Binance's usual writing is its opening, the payload and a brace. If the payload parses, so does the
        # frame, and it was parsed once and not twice. Any other writing, and any fault, is judged by the envelope.
        stream = self._streams.get(frame[len(_NAME_OPENS) : frame.find('"', len(_NAME_OPENS))])
        if stream is not None and frame.startswith(stream.opening) and frame.endswith("}}"):
            try:
                return (stream.event(stream, frame, frame[len(stream.opening) - 1 : -1]),)
            except FrameRejected:
                pass
        envelope = parse(_ENVELOPE, frame)
        stream = self._streams.get(envelope.stream)
        if stream is not None:
            return (stream.event(stream, frame, raw_text(envelope.data)),)
        return (_answer(envelope),)


def _answer(answer: _Envelope) -> Ack | Rejected | Notice:
    """What a frame outside the subscribed streams says. Raises: FrameRejected."""
    if answer.stream == _SHUTDOWN_STREAM or answer.e == "serverShutdown":
        return Notice("shutdown", "the server is about to restart")
    if answer.stream:
        raise FrameRejected("unexpected_channel", answer.stream[:DETAIL_CHARS])
    request_id = "" if answer.id is None else str(answer.id)
    if answer.error is not None:
        return Rejected(request_id, f"{answer.error.msg} (code {answer.error.code})")
    if answer.code is not None:
        return Rejected(request_id, f"{answer.msg} (code {answer.code})")
    if answer.result is msgspec.UNSET:
        raise FrameRejected("unexpected_shape", "neither a stream nor an answer")
    result = raw_text(answer.result)
    return Ack(request_id) if result == "null" else Notice("status", result)


class Binance(Exchange):
    """Spot market data. Binance.US (`wss://stream.binance.us:9443`) speaks the same with symbols of its own."""

    name: ClassVar[str] = "binance"
    ws_url: ClassVar[str] = "wss://stream.binance.com:9443"
    rest_url: ClassVar[str] = "https://api.binance.com"
    orderbook_channels: ClassVar[tuple[str, ...]] = (
        "depth20@100ms",
        "depth5@100ms",
        "depth10@100ms",
        "depth5",
        "depth10",
        "depth20",
        "depth@100ms",
        "depth",
    )
    trade_channels: ClassVar[tuple[str, ...]] = ("trade",)
    #: 1024 streams, of which a market takes two. Five messages a second cut the connection, and the pongs that the
    #: transport sends count among them. The server pings every 20 s and waits 60 s for the pong. A connection is cut
    #: after 24 h.
    limits: ClassVar[Limits] = Limits(
        markets_per_connection=512,
        messages_per_s=4,
        idle_timeout_s=60,
        lifetime_s=86400,
        connects=Pace(1.0, 20),
        rest=Pace(2.0, 10),
    )
    #: The server pings and the transport answers; pings of ours do not keep the connection.
    heartbeat: ClassVar[Heartbeat | None] = None
    symbols_path: ClassVar[str] = "/api/v3/exchangeInfo"
    symbol_example: ClassVar[str] = "lower case without a separator, such as btcusdt"

    def canonical(self, symbol: str) -> str:
        if not _SYMBOL.fullmatch(symbol):
            raise InvalidSymbol(self.name, symbol, self.symbol_example)
        return symbol.lower()

    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        """The combined endpoint below `ws_url`; a query such as `timeUnit=MICROSECOND` is kept.

        `streams=` is dropped: subscribed by URL as well as by message, every event would come twice.
        """
        base, _, query = ws_url.partition("?")
        base = base.rstrip("/").removesuffix("/stream").removesuffix("/ws")
        options = "&".join(part for part in query.split("&") if part and not part.startswith("streams="))
        return f"{base}/stream?{options}" if options else f"{base}/stream"

    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        feeds = [(symbol, feed) for symbol in subscription.symbols for feed in subscription.feeds]
        parts = [feeds[at : at + PARAMS_PER_REQUEST] for at in range(0, len(feeds), PARAMS_PER_REQUEST)]
        return [
            _request("SUBSCRIBE", f"{nonce[:NONCE_CHARS]}-{number}", subscription, part)
            for number, part in enumerate(parts, 1)
        ]

    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        """Leave the stream and ask for it again. A diff stream brings no snapshot: its ids just go on."""
        leave = _request("UNSUBSCRIBE", f"{nonce[:NONCE_CHARS]}-u", subscription, [(symbol, feed)])
        again = _request("SUBSCRIBE", f"{nonce[:NONCE_CHARS]}-s", subscription, [(symbol, feed)])
        return [msgspec.structs.replace(leave, feeds=()), again]

    def book_path(self, subscription: Subscription, symbol: str) -> str | None:
        if not _is_diff(subscription.orderbook_channel):
            return None
        return f"/api/v3/depth?symbol={symbol.upper()}&limit={BOOK_LEVELS}"

    def asked_book(self, symbol: str, body: bytes) -> Decoded:
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise FrameRejected("not_utf8", f"{error.reason} at byte {error.start}") from None
        last = parse(_PARTIAL, text).lastUpdateId
        return Decoded(symbol, ORDERBOOK, f"{ASKED}{last}", None, text, None, last)

    def decoder(self, subscription: Subscription) -> Decoder:
        return BinanceDecoder(subscription)

    def dense_span(self, sequence_id: str, data: str) -> tuple[int, int] | None:
        """`t`, or `f-l` of an aggregate that came over REST."""
        first, _, last = sequence_id.partition("-")
        return int(first), int(last or first)

    def listed(self, body: bytes) -> frozenset[str]:
        markets = parse(_EXCHANGE_INFO, body).symbols
        return frozenset(m.symbol.lower() for m in markets if m.status == "TRADING" and _SYMBOL.fullmatch(m.symbol))


def _is_diff(channel: str) -> bool:
    return channel.partition("@")[0] == "depth"


def _channel(subscription: Subscription, feed: str) -> str:
    return subscription.orderbook_channel if feed == ORDERBOOK else subscription.trade_channel


def _request(method: str, id: str, subscription: Subscription, feeds: Sequence[tuple[str, str]]) -> Request:
    params = [f"{symbol}@{_channel(subscription, feed)}" for symbol, feed in feeds]
    frame = msgspec.json.encode({"method": method, "params": params, "id": id}).decode()
    return Request(id, frame, tuple(feeds))
