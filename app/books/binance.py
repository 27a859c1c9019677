"""Binance: partial depth is whole each time; changes (`depth`) follow when `U == u before + 1`, and bring no snapshot.

A REST answer stored as a row of its own (`{"lastUpdateId":...}` without a stream) is the snapshot that changes need: those
with `u <= lastUpdateId` are older, the first kept one has `U <= lastUpdateId + 1 <= u`, and both may be stored before it.
Source: binance-spot-api-docs, "How to manage a local order book correctly" (2026-07).
"""

from __future__ import annotations

import msgspec

from app.books.change import Change, Pair, RestBook, Venue, decode


class _Partial(msgspec.Struct, gc=False, kw_only=True):
    lastUpdateId: int
    bids: list[Pair]
    asks: list[Pair]


class _Payload(msgspec.Struct, gc=False, kw_only=True):
    lastUpdateId: int | None = None
    bids: list[Pair] = []
    asks: list[Pair] = []
    U: int | None = None
    u: int | None = None
    b: list[Pair] = []
    a: list[Pair] = []


class _Combined(msgspec.Struct, gc=False, kw_only=True):
    stream: str = ""
    data: _Payload | None = None
    lastUpdateId: int | None = None
    bids: list[Pair] = []
    asks: list[Pair] = []


_ROW = msgspec.json.Decoder(_Combined)
_REST = msgspec.json.Decoder(_Partial)


def read(data: str, symbol: str) -> Change:
    """Raises: ValueError, also for another market's frame."""
    row = decode(_ROW, data)
    book = row.data
    if book is None:
        if row.lastUpdateId is None:
            raise ValueError("neither a frame of a stream nor a REST book")
        return Change(True, row.bids, row.asks, None, row.lastUpdateId, True, True, row.lastUpdateId)
    if row.stream.partition("@")[0] != symbol:
        raise ValueError(f"a frame of {row.stream[:64]}")
    if book.lastUpdateId is not None:
        return Change(True, book.bids, book.asks, number=book.lastUpdateId)
    if book.U is None or book.u is None:
        raise ValueError("changes without U and u")
    return Change(False, book.b, book.a, book.U - 1, book.u, True, False, book.u)


def rest(body: bytes) -> RestBook:
    """The answer to /api/v3/depth. Raises: ValueError."""
    book = decode(_REST, body)
    return RestBook(book.lastUpdateId, book.bids, book.asks)


VENUE = Venue(read, lambda symbol: f"/api/v3/depth?symbol={symbol.upper()}&limit=1000", rest, asks=True)
