"""Bybit V5 spot: a snapshot, then deltas with `u == u before + 1`; a later snapshot, or `u == 1`, replaces the book.

`orderbook.1` is whole each time. `seq`, common to all depths, is what a REST answer can be compared by.
Source: bybit-exchange/docs, v5/websocket/public/orderbook, v5/market/orderbook (2026-07).
"""

from __future__ import annotations

import msgspec

from app.books.change import Change, Pair, RestBook, Venue, decode


class _Book(msgspec.Struct, gc=False):
    s: str
    b: list[Pair]
    a: list[Pair]
    u: int
    seq: int | None = None


class _Frame(msgspec.Struct, gc=False):
    topic: str
    type: str
    data: _Book


class _Rest(msgspec.Struct, gc=False, rename="camel"):
    ret_code: int
    ret_msg: str = ""
    result: msgspec.Raw = msgspec.Raw(b"{}")


_FRAME = msgspec.json.Decoder(_Frame)
_REST = msgspec.json.Decoder(_Rest)
_RESULT = msgspec.json.Decoder(_Book)


def read(data: str, symbol: str) -> Change:
    """Raises: ValueError, also for another market's frame."""
    frame = decode(_FRAME, data)
    book = frame.data
    if book.s != symbol:
        raise ValueError(f"a frame of {book.s[:64]!r}")
    if frame.type not in ("snapshot", "delta"):
        raise ValueError(f"type {frame.type[:64]!r}")
    if frame.topic.startswith("orderbook.1."):
        return Change(True, book.b, book.a, number=book.seq)
    whole = frame.type == "snapshot" or book.u == 1
    return Change(whole, book.b, book.a, None if whole else book.u - 1, book.u, True, number=book.seq)


def rest(body: bytes) -> RestBook:
    """The answer to /v5/market/orderbook. Raises: ValueError, also for an error under HTTP 200."""
    answer = decode(_REST, body)
    if answer.ret_code != 0:
        raise ValueError(f"retCode {answer.ret_code}: {answer.ret_msg}")
    book = decode(_RESULT, bytes(answer.result))
    return RestBook(book.seq, book.b, book.a)


VENUE = Venue(read, lambda symbol: f"/v5/market/orderbook?category=spot&symbol={symbol}&limit=200", rest)
