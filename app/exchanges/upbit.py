"""Upbit (Korea): full book snapshots and trades.

| channel   | frame                                  | identity                       | continuity |
| --------- | -------------------------------------- | ------------------------------ | ---------- |
| orderbook | the whole book, up to 30 levels a side | timestamp, stream type, digest | unknowable |
| trade     | one trade                              | sequential id                  | unknowable |

Nothing is acknowledged, and a later subscribe message replaces the earlier one: everything is asked for in one message.
Frames come as binary holding UTF-8 JSON. We ask for the short names (`SIMPLE`) and read the long ones too.

Source: docs.upbit.com, WebSocket guide, websocket-orderbook, websocket-trade, rate-limits (read 2026-10), and frames
captured in 2021; docs/exchanges.md grades each statement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated

import msgspec

from app.errors import FrameRejected, InvalidSymbol
from app.exchanges.base import (
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
from app.exchanges.wire import millis_us, parse
from app.model import ORDERBOOK, TRADE

#: A sequential id has 17 digits today and had 16: int64, never a float.
_Int64 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

_SYMBOL = re.compile(r"[A-Za-z0-9]{2,10}-[A-Za-z0-9]{1,20}", re.ASCII)


class _Error(msgspec.Struct, gc=False):
    name: str = ""
    message: str = ""


class _Frame(msgspec.Struct, gc=False):
    """Every frame the venue sends; of each pair of spellings one is there."""

    ty: str = ""
    cd: str = ""
    tms: _Int64 | None = None
    ttms: _Int64 | None = None
    sid: _Int64 | None = None
    st: str = ""
    type: str = ""
    code: str = ""
    timestamp: _Int64 | None = None
    trade_timestamp: _Int64 | None = None
    sequential_id: _Int64 | None = None
    stream_type: str = ""
    status: str = ""
    error: _Error | None = None


class _Market(msgspec.Struct, gc=False):
    market: str


_FRAME = msgspec.json.Decoder(_Frame)
_MARKETS = msgspec.json.Decoder(list[_Market])


class Upbit(Exchange):
    """api.upbit.com; the regional exchanges (sg-, id-, th-api.upbit.com) speak the same words at other base URLs."""

    name = "upbit"
    ws_url = "wss://api.upbit.com/websocket/v1"
    rest_url = "https://api.upbit.com"
    orderbook_channels = ("orderbook",)
    trade_channels = ("trade",)
    # The venue allows 5 messages a second and 100 a minute; one a second keeps to both, heartbeats included.
    # It names no most of codes: 100 keeps the one subscribe message below 4 KB and a lost connection bearable.
    limits = Limits(
        markets_per_connection=100, messages_per_s=1.0, idle_timeout_s=120.0, connects=Pace(4.0, 5), rest=Pace(8.0, 10)
    )
    heartbeat = Heartbeat(every_s=30.0, frame=None)
    symbols_path = "/v1/market/all"
    symbol_example = "upper case, the quote currency first, such as KRW-BTC"

    def canonical(self, symbol: str) -> str:
        """Upper case `QUOTE-BASE`. Raises: InvalidSymbol, also for the two the wrong way round (`BTC-KRW`)."""
        upper = symbol.upper()
        if not _SYMBOL.fullmatch(symbol) or upper.endswith("-KRW"):
            raise InvalidSymbol(self.name, symbol, f"write it in {self.symbol_example}")
        return upper

    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        """`ws_url` itself: what is wanted is said by message."""
        return ws_url

    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        """One request for everything, its id "": the venue never answers it. `nonce` becomes the ticket."""
        channels = {ORDERBOOK: subscription.orderbook_channel, TRADE: subscription.trade_channel}
        message = [
            {"ticket": nonce},
            *({"type": channels[feed], "codes": subscription.symbols} for feed in subscription.feeds),
            {"format": "SIMPLE"},
        ]
        feeds = tuple((symbol, feed) for symbol in subscription.symbols for feed in subscription.feeds)
        return [Request("", msgspec.json.encode(message).decode(), feeds)]

    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        """The full request again. A smaller one would end the other feeds; each of them sends one snapshot more."""
        return self.subscribe(subscription, nonce)

    def decoder(self, subscription: Subscription) -> Decoder:
        """A decoder that knows the subscription's codes."""
        return _UpbitDecoder(subscription)

    def listed(self, body: bytes) -> frozenset[str]:
        """Every code of `/v1/market/all`: it lists open markets only. Raises: FrameRejected."""
        return frozenset(listing.market for listing in parse(_MARKETS, body))


class _UpbitDecoder(Decoder):
    def __init__(self, subscription: Subscription) -> None:
        channels = {ORDERBOOK: subscription.orderbook_channel, TRADE: subscription.trade_channel}
        self._feeds = {channels[feed]: feed for feed in subscription.feeds}
        self._symbols = {symbol: symbol for symbol in subscription.symbols}

    def decode(self, frame: str) -> Sequence[Message]:
        """One event a frame, its data the frame itself. Raises: FrameRejected."""
        parsed = parse(_FRAME, frame)
        channel = parsed.ty or parsed.type
        if not channel:
            return (_answer(parsed),)
        feed = self._feeds.get(channel)
        if feed is None:
            raise FrameRejected("unexpected_channel", channel[:64])
        code = parsed.cd or parsed.code
        symbol = self._symbols.get(code)
        if symbol is None:
            raise FrameRejected("unexpected_symbol", code[:64])
        return (_trade(symbol, parsed, frame) if feed == TRADE else _book(symbol, parsed, frame),)


def _book(symbol: str, parsed: _Frame, frame: str) -> Decoded:
    """Several books may share a millisecond, and a SNAPSHOT frame repeats an older one's: the digest tells them apart.

    The number is the venue's own in the id; only `exchange_us` judges its unit, which was microseconds once by mistake.
    """
    timestamp = parsed.tms if parsed.tms is not None else parsed.timestamp
    if timestamp is None:
        raise FrameRejected("unexpected_shape", "an order book without its timestamp")
    digest = blake2b(frame.encode(), digest_size=8).hexdigest()
    stream_type = parsed.st or parsed.stream_type
    return Decoded(symbol, ORDERBOOK, f"{timestamp}-{stream_type}-{digest}", millis_us(timestamp), frame)


def _trade(symbol: str, parsed: _Frame, frame: str) -> Decoded:
    """Ids are unique but neither ordered nor consecutive: they identify a trade and say nothing about a hole."""
    sequential_id = parsed.sid if parsed.sid is not None else parsed.sequential_id
    if sequential_id is None:
        raise FrameRejected("unexpected_shape", "a trade without its sequential id")
    traded_at = parsed.ttms if parsed.ttms is not None else parsed.trade_timestamp
    return Decoded(symbol, TRADE, str(sequential_id), millis_us(traded_at), frame)


def _answer(parsed: _Frame) -> Message:
    """A frame that belongs to no channel: an error, or the sign of life after a text PING."""
    if parsed.error is not None:
        return Rejected("", f"{parsed.error.name}: {parsed.error.message}")
    if parsed.status:
        return Notice("heartbeat", parsed.status)
    raise FrameRejected("unexpected_shape", "neither a channel, an error nor a status")
