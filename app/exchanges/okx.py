"""OKX: an incremental book chained by sequence ids, full small books, and trades aggregated by taker order.

| channel         | frame                         | identity                       | continuity                |
| --------------- | ----------------------------- | ------------------------------ | ------------------------- |
| books           | snapshot                      | seqId and digest               | starts anew               |
| books           | update                        | prevSeqId and seqId            | prevSeqId == seqId before |
| books5, bbo-tbt | the whole book, 5 or 1 levels | seqId                          | unknowable                |
| trades          | rows, each a range of trades  | tradeId, the last of its range | tradeId - count == before |

A row of `trades` stands for the trades `tradeId - count + 1 .. tradeId`. Numbers are strings, sequence ids are not.

Source: okx.com/docs-v5, WebSocket connect and subscribe, order book channel, trades channel (read 2026-07), and frames
captured in 2022, 2025 and 2026; docs/exchanges.md grades each statement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
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
from app.exchanges.wire import Int64, millis_us, parse, raw_text
from app.model import ORDERBOOK, TRADE

#: -1 is the venue's word for "no message before this one".
_NONE_BEFORE = -1
_Int64 = Annotated[int, msgspec.Meta(ge=_NONE_BEFORE, le=2**63 - 1)]

_SYMBOL = re.compile(r"[A-Za-z0-9]{1,20}(-[A-Za-z0-9]{1,20}){1,4}", re.ASCII)
#: The only place where an error names what it refuses; seen with and without the blank.
_REFUSED = re.compile(r"channel:\s*([A-Za-z0-9-]+),\s*instId:\s*([A-Za-z0-9-]+)")
#: The channel whose frames are chained; the other book channels send the whole book each time.
_CHAINED = "books"
_SERVICE_UPGRADE = "64008"


class _Arg(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    channel: str = ""
    inst_id: str = ""


class _Row(msgspec.Struct, gc=False, rename="camel"):
    """An element of `data`: a book or a trade."""

    ts: _Int64 | None = None
    inst_id: str = ""
    trade_id: Int64 | None = None
    count: _Int64 = 1
    seq_id: _Int64 | None = None
    prev_seq_id: _Int64 | None = None


class _Frame(msgspec.Struct, gc=False):
    arg: _Arg = _Arg()
    action: str = ""
    data: tuple[_Row, ...] = ()
    event: str = ""
    id: str = ""
    code: str = ""
    msg: str = ""


class _Rows(msgspec.Struct, gc=False):
    """A trades frame once more, for the exact text of each row."""

    data: tuple[msgspec.Raw, ...]


class _Instrument(msgspec.Struct, gc=False, rename="camel"):
    inst_id: str
    state: str = ""


class _Instruments(msgspec.Struct, gc=False):
    code: str
    msg: str = ""
    data: tuple[_Instrument, ...] = ()


# Not strict: numbers are strings (`"count":"3"`).
_FRAME = msgspec.json.Decoder(_Frame, strict=False)
_ROW = msgspec.json.Decoder(_Row, strict=False)
_ROWS = msgspec.json.Decoder(_Rows)
_INSTRUMENTS = msgspec.json.Decoder(_Instruments)


class Okx(Exchange):
    """ws.okx.com, public channels."""

    name = "okx"
    ws_url = "wss://ws.okx.com:8443/ws/v5/public"
    rest_url = "https://www.okx.com"
    orderbook_channels = ("books", "books5", "bbo-tbt")
    trade_channels = ("trades",)
    # The venue prefers fewer than 30 depth channels a connection, and counts at most 480 requests an hour on it, 3 a
    # second: a request a market leaves most of the hour's requests to resubscriptions.
    limits = Limits(
        markets_per_connection=25,
        messages_per_s=2.0,
        idle_timeout_s=30.0,
        connects=Pace(2.0, 3),
        rest=Pace(5.0, 10),
        requests_per_hour=480,
    )
    heartbeat = Heartbeat(every_s=15.0, frame="ping")
    symbols_path = "/api/v5/public/instruments?instType=SPOT"
    symbol_example = "upper case with a dash, such as BTC-USDT"

    def canonical(self, symbol: str) -> str:
        """Upper case with dashes. Raises: InvalidSymbol."""
        if not _SYMBOL.fullmatch(symbol):
            raise InvalidSymbol(self.name, symbol, f"write it in {self.symbol_example}")
        return symbol.upper()

    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        """`ws_url` itself: what is wanted is said by message."""
        return ws_url

    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        """One request a market, so that what is refused refuses nothing else. The venue acknowledges each feed."""
        return [
            _request("subscribe", _request_id(nonce, f"s{n}"), subscription, symbol, subscription.feeds)
            for n, symbol in enumerate(subscription.symbols)
        ]

    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        """Unsubscribe, then subscribe, this feed alone: a snapshot is sent only to a new subscription."""
        one = f"{subscription.symbols.index(symbol)}{feed[0]}"  # one nonce may serve the feeds of a whole connection
        leave = _request("unsubscribe", _request_id(nonce, f"u{one}"), subscription, symbol, (feed,))
        enter = _request("subscribe", _request_id(nonce, f"r{one}"), subscription, symbol, (feed,))
        return [msgspec.structs.replace(leave, feeds=()), enter]

    def decoder(self, subscription: Subscription) -> Decoder:
        """A decoder that knows the subscription's instruments and channels."""
        return _OkxDecoder(subscription)

    def dense_span(self, sequence_id: str, data: str) -> tuple[int, int] | None:
        """`tradeId - count + 1 .. tradeId`; a single trade of REST has no count. None without the text."""
        if not data:
            return None
        return int(sequence_id) - parse(_ROW, data).count + 1, int(sequence_id)

    def listed(self, body: bytes) -> frozenset[str]:
        """Spot instruments in state `live`. Raises: FrameRejected, also when HTTP 200 carries an error code."""
        answer = parse(_INSTRUMENTS, body)
        if answer.code != "0":
            raise FrameRejected("venue_error", f"{answer.code}: {answer.msg}")
        return frozenset(instrument.inst_id for instrument in answer.data if instrument.state == "live")


def _channel(subscription: Subscription, feed: str) -> str:
    return subscription.trade_channel if feed == TRADE else subscription.orderbook_channel


def _request_id(nonce: str, part: str) -> str:
    """At most 32 letters and digits, else the venue refuses the request. The end of a nonce differs most."""
    return re.sub(r"[^A-Za-z0-9]", "", nonce)[-24:] + part


def _request(op: str, request_id: str, subscription: Subscription, symbol: str, feeds: tuple[str, ...]) -> Request:
    args = [{"channel": _channel(subscription, feed), "instId": symbol} for feed in feeds]
    message = msgspec.json.encode({"id": request_id, "op": op, "args": args}).decode()
    return Request(request_id, message, tuple((symbol, feed) for feed in feeds))


class _OkxDecoder(Decoder):
    def __init__(self, subscription: Subscription) -> None:
        self._feeds = {
            (_channel(subscription, feed), symbol): (symbol, feed)
            for symbol in subscription.symbols
            for feed in subscription.feeds
        }
        self._channels = {channel for channel, _ in self._feeds}

    def decode(self, frame: str) -> Sequence[Message]:
        """One event a book frame, its data the frame; one a row of trades, data the row. Raises: FrameRejected."""
        if frame == "pong":  # the answer to our text `ping`, and not JSON
            return (Notice("pong"),)
        parsed = parse(_FRAME, frame)
        if parsed.event:
            return (self._answer(parsed),)
        symbol, feed = self._asked(parsed.arg)
        if not parsed.data:
            raise FrameRejected("unexpected_shape", "no data")
        for row in parsed.data:
            if row.inst_id and row.inst_id != parsed.arg.inst_id:
                raise FrameRejected("unexpected_symbol", f"{row.inst_id[:64]} in a frame of {parsed.arg.inst_id}")
        if feed == TRADE:
            return _trades(symbol, parsed.data, frame)
        if len(parsed.data) > 1:
            raise FrameRejected("unexpected_shape", f"{len(parsed.data)} books in one frame")
        if parsed.arg.channel == _CHAINED:
            return (_chained(symbol, parsed.action, parsed.data[0], frame),)
        return (_whole(symbol, parsed.arg.channel, parsed.data[0], frame),)

    def _asked(self, arg: _Arg) -> tuple[str, str]:
        asked = self._feeds.get((arg.channel, arg.inst_id))
        if asked is None:
            reason = "unexpected_symbol" if arg.channel in self._channels else "unexpected_channel"
            raise FrameRejected(reason, f"{arg.channel} {arg.inst_id}"[:128])
        return asked

    def _answer(self, parsed: _Frame) -> Message:
        words = f"{parsed.code}: {parsed.msg}" if parsed.code else parsed.msg
        if parsed.event == "subscribe":
            return Ack(parsed.id, (self._asked(parsed.arg),))
        if parsed.event == "error":
            named = (self._feeds.get((channel, symbol)) for channel, symbol in _REFUSED.findall(parsed.msg))
            return Rejected(parsed.id, words, tuple(feed for feed in named if feed is not None))
        if parsed.event == "notice" and parsed.code == _SERVICE_UPGRADE:
            return Notice("shutdown", words)
        return Notice("status", " ".join(filter(None, (parsed.event, parsed.arg.channel, parsed.arg.inst_id, words))))


def _trades(symbol: str, rows: tuple[_Row, ...], frame: str) -> list[Message]:
    events: list[Message] = []
    for row, text in zip(rows, parse(_ROWS, frame).data, strict=False):  # one text, so one length
        last = row.trade_id
        if last is None:
            raise FrameRejected("unexpected_shape", "a trade without its id")
        before = last - max(row.count, 1)  # a row is one trade at least, whatever it says
        events.append(Decoded(symbol, TRADE, str(last), millis_us(row.ts), raw_text(text), before, last, True))
    return events


def _chained(symbol: str, action: str, row: _Row, frame: str) -> Decoded:
    """A frame of `books`. Three cases keep their own identity although the sequence ids repeat:

    - a snapshot carries the id of the update before it: the digest keeps both, and equal bytes are one event;
    - a keep-alive after a minute without change has seqId == prevSeqId, again and again: its time is part of the id;
    - after maintenance ids may go back (seqId < prevSeqId, the chain unbroken): prevSeqId is part of the id.

    Frames of 2022 have no sequence ids: their digest identifies them, and nothing can be said about holes.
    """
    if action not in ("snapshot", "update"):
        raise FrameRejected("unexpected_shape", f"action {action[:32]!r}")
    last, before = row.seq_id, row.prev_seq_id
    if last is None:
        identity, follows = f"{_CHAINED}-{action}-{row.ts}-{_digest(frame)}", None
    elif action == "snapshot":
        identity, follows = f"{_CHAINED}-snapshot-{last}-{_digest(frame)}", None
    elif before is None:
        raise FrameRejected("unexpected_shape", "an update with seqId and without prevSeqId")
    else:
        identity, follows = f"{_CHAINED}-update-{before}-{last}", None if before == _NONE_BEFORE else before
        if before == last:
            identity = f"{identity}-{row.ts}"
    return Decoded(symbol, ORDERBOOK, identity, millis_us(row.ts), frame, follows, last)


def _whole(symbol: str, channel: str, row: _Row, frame: str) -> Decoded:
    """A frame of `books5` or `bbo-tbt`: ids jump and nothing refers to the frame before."""
    identity = f"{channel}-{row.ts}-{_digest(frame)}" if row.seq_id is None else f"{channel}-{row.seq_id}"
    return Decoded(symbol, ORDERBOOK, identity, millis_us(row.ts), frame)


def _digest(frame: str) -> str:
    return blake2b(frame.encode(), digest_size=8).hexdigest()
