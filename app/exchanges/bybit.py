"""Bybit V5, spot: books as snapshot and deltas counted one by one, and trades in batches.

| topic                   | frame                  | identity                | continuity        |
| ----------------------- | ---------------------- | ----------------------- | ----------------- |
| orderbook.{50,200,1000} | snapshot, then deltas  | depth-type-u-seq-cts    | u == u before + 1 |
| orderbook.1             | the best bid and offer | depth-type-u-seq-cts-ts | unknowable        |
| publicTrade             | up to 1024 trades      | trade id `i`            | unknowable        |

Each depth counts its own `u`, and starts over at 1 when the service restarts; `seq` is common to all topics of a symbol
and jumps. Spot trade ids often run one by one and sometimes skip, so they prove no hole.

Source: bybit-exchange/docs, v5/websocket/public/{orderbook,trade}, v5 connect page (read 2026-07), and frames captured
in 2023 and 2026; docs/exchanges.md grades each statement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

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
from app.exchanges.wire import millis_us, parse, raw_text
from app.model import ORDERBOOK, TRADE

_Int64 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

_SYMBOL = re.compile(r"[A-Za-z0-9]{4,32}", re.ASCII)
#: Topics inside the words of a refusal: `Invalid symbol :[orderbook.50.NOSUCHSYM]`. Looked for at the beginning of a word
#: only: at each of its letters, a word of 40,000 letters took half a minute.
_TOPIC = re.compile(r"(?<![A-Za-z])[A-Za-z]+(?:\.[A-Za-z0-9]+)+")
#: Snapshots only, repeated after 3 s without change.
_BEST_ONLY = "orderbook.1"


class _Book(msgspec.Struct, gc=False):
    s: str
    u: _Int64
    seq: _Int64


class _Trade(msgspec.Struct, gc=False):
    i: Annotated[str, msgspec.Meta(min_length=1)]
    s: str
    T: _Int64 | None = None


class _Frame(msgspec.Struct, gc=False):
    """Data and answers. `ts` stands before `type` on spot and after it elsewhere: read by name, never by position."""

    topic: str = ""
    ts: _Int64 | None = None
    type: str = ""
    data: _Book | tuple[_Trade, ...] | None = None
    cts: _Int64 | None = None
    success: bool | None = None
    ret_msg: str | None = None
    req_id: str | None = None
    op: str = ""


class _Rows(msgspec.Struct, gc=False):
    """A trade frame once more, for the exact text of each trade."""

    data: tuple[msgspec.Raw, ...]


class _Instrument(msgspec.Struct, gc=False):
    symbol: str
    status: str = ""


class _Page(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    instruments: tuple[_Instrument, ...] = msgspec.field(default=(), name="list")
    next_page_cursor: str = ""


class _Instruments(msgspec.Struct, gc=False, rename="camel"):
    ret_code: int
    ret_msg: str = ""
    result: _Page = _Page()


_FRAME = msgspec.json.Decoder(_Frame)
_ROWS = msgspec.json.Decoder(_Rows)
_INSTRUMENTS = msgspec.json.Decoder(_Instruments)


class Bybit(Exchange):
    """stream.bybit.com, spot."""

    name = "bybit"
    ws_url = "wss://stream.bybit.com/v5/public/spot"
    rest_url = "https://api.bybit.com"
    orderbook_channels = ("orderbook.50", "orderbook.1", "orderbook.200", "orderbook.1000")
    trade_channels = ("publicTrade",)
    # At most 10 args a request and 21,000 characters of args a connection: the two longest topics of a market take 97
    # characters with quotes and commas, so that 100 markets stay far below. No figure is known for messages a second.
    limits = Limits(
        markets_per_connection=100,
        messages_per_s=10.0,
        idle_timeout_s=600.0,
        connects=Pace(1.5, 20),
        rest=Pace(20.0, 40),
    )
    heartbeat = Heartbeat(every_s=20.0, frame='{"op":"ping"}')
    symbols_path = "/v5/market/instruments-info?category=spot&limit=1000"
    symbol_example = "upper case without a dash, such as BTCUSDT"

    def canonical(self, symbol: str) -> str:
        """Upper case without separator. Raises: InvalidSymbol."""
        if not _SYMBOL.fullmatch(symbol):
            raise InvalidSymbol(self.name, symbol, f"write it in {self.symbol_example}")
        return symbol.upper()

    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        """`ws_url` itself: what is wanted is said by message."""
        return ws_url

    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        """One request a market: one bad topic may refuse the whole request, and an answer may not carry its id."""
        return [
            _request("subscribe", f"{nonce}-{n}", subscription, symbol, subscription.feeds)
            for n, symbol in enumerate(subscription.symbols)
        ]

    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        """Unsubscribe, then subscribe, this feed alone: a snapshot is sent to a new subscription."""
        one = f"{subscription.symbols.index(symbol)}{feed[0]}"  # one nonce may serve the feeds of a whole connection
        leave = _request("unsubscribe", f"{nonce}-u{one}", subscription, symbol, (feed,))
        enter = _request("subscribe", f"{nonce}-r{one}", subscription, symbol, (feed,))
        return [msgspec.structs.replace(leave, feeds=()), enter]

    def decoder(self, subscription: Subscription) -> Decoder:
        """A decoder that knows the subscription's topics."""
        return _BybitDecoder(subscription)

    def listed(self, body: bytes) -> frozenset[str]:
        """Spot symbols in status `Trading`. Raises: FrameRejected, also for an error code or an incomplete list."""
        answer = parse(_INSTRUMENTS, body)
        if answer.ret_code != 0:
            raise FrameRejected("venue_error", f"{answer.ret_code}: {answer.ret_msg}")
        if answer.result.next_page_cursor:  # not documented for spot; half a list would call good symbols unknown
            raise FrameRejected("incomplete_list", "the venue has a second page")
        return frozenset(
            instrument.symbol for instrument in answer.result.instruments if instrument.status == "Trading"
        )


def _topic(subscription: Subscription, symbol: str, feed: str) -> str:
    channel = subscription.trade_channel if feed == TRADE else subscription.orderbook_channel
    return f"{channel}.{symbol}"


def _request(op: str, request_id: str, subscription: Subscription, symbol: str, feeds: tuple[str, ...]) -> Request:
    args = [_topic(subscription, symbol, feed) for feed in feeds]
    message = msgspec.json.encode({"req_id": request_id, "op": op, "args": args}).decode()
    return Request(request_id, message, tuple((symbol, feed) for feed in feeds))


class _BybitDecoder(Decoder):
    def __init__(self, subscription: Subscription) -> None:
        self._feeds = {
            _topic(subscription, symbol, feed): (symbol, feed)
            for symbol in subscription.symbols
            for feed in subscription.feeds
        }
        self._channels = {subscription.orderbook_channel, subscription.trade_channel}
        self._depth = subscription.orderbook_channel.removeprefix("orderbook.")
        self._chained = subscription.orderbook_channel != _BEST_ONLY

    def decode(self, frame: str) -> Sequence[Message]:
        """One event a book frame (its data the frame), one a trade (its data the element). Raises: FrameRejected."""
        parsed = parse(_FRAME, frame)
        if not parsed.topic:
            return (self._answer(parsed),)
        asked = self._feeds.get(parsed.topic)
        if asked is None:
            channel = parsed.topic.rpartition(".")[0]
            reason = "unexpected_symbol" if channel in self._channels else "unexpected_channel"
            raise FrameRejected(reason, parsed.topic[:128])
        symbol, feed = asked
        if feed == TRADE:
            return _trades(symbol, parsed.data, frame)
        return (self._book(symbol, parsed, frame),)

    def _book(self, symbol: str, parsed: _Frame, frame: str) -> Decoded:
        """A snapshot replaces the book at any time; `u == 1` is one whatever its type says (the service restarted).

        `orderbook.1` repeats the same u, seq and cts while nothing changes: `ts` keeps these signs of life apart.
        """
        book = parsed.data
        if not isinstance(book, _Book) or parsed.type not in ("snapshot", "delta"):
            raise FrameRejected("unexpected_shape", f"an order book of type {parsed.type[:32]!r}")
        if book.s != symbol:
            raise FrameRejected("unexpected_symbol", f"{book.s[:64]} in a frame of {symbol}")
        engine_ms = parsed.ts if parsed.cts is None else parsed.cts
        identity = f"{self._depth}-{parsed.type}-{book.u}-{book.seq}-{engine_ms}"
        if not self._chained:
            return Decoded(symbol, ORDERBOOK, f"{identity}-{parsed.ts}", millis_us(parsed.ts), frame)
        anew = parsed.type == "snapshot" or book.u == 1
        follows = None if anew else book.u - 1
        return Decoded(symbol, ORDERBOOK, identity, millis_us(parsed.ts), frame, follows, book.u, True)

    def _answer(self, parsed: _Frame) -> Message:
        """On spot a pong says `"op":"ping"` and has its word in `ret_msg`; other services say `"op":"pong"`."""
        words, request_id = parsed.ret_msg or "", parsed.req_id or ""
        if parsed.op == "pong" or (parsed.op == "ping" and words == "pong"):
            return Notice("pong")
        if parsed.op in ("subscribe", "") and parsed.success is False:
            named = (self._feeds.get(topic) for topic in _TOPIC.findall(words))
            return Rejected(request_id, words, tuple(feed for feed in named if feed is not None))
        if parsed.op == "subscribe" and parsed.success:
            return Ack(request_id)
        if parsed.op:
            return Notice("status", f"{parsed.op} {parsed.success} {words}".strip())
        raise FrameRejected("unexpected_shape", "neither a topic nor an operation")


def _trades(symbol: str, rows: _Book | tuple[_Trade, ...] | None, frame: str) -> list[Message]:
    if not isinstance(rows, tuple) or not rows:
        raise FrameRejected("unexpected_shape", "no trades")
    events: list[Message] = []
    for row, text in zip(rows, parse(_ROWS, frame).data, strict=False):  # one text, so one length
        if row.s != symbol:
            raise FrameRejected("unexpected_symbol", f"{row.s[:64]} in a frame of {symbol}")
        events.append(Decoded(symbol, TRADE, row.i, millis_us(row.T), raw_text(text)))
    return events
