"""OKX: `books` is a snapshot and changes chained by `prevSeqId == seqId before`; `books5` and `bbo-tbt` are whole each time.

Ids jump, stand still in a keep-alive and go back after maintenance, the chain unbroken: only equality counts. Frames of
2022 have no ids. Source: okx.com/docs-v5, "Order book channel" (2026-07).
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from app.books.change import Change, RestBook, Venue, decode

_Level = tuple[Decimal, Decimal, str, str]


class _Book(msgspec.Struct, gc=False, rename="camel"):
    bids: list[_Level]
    asks: list[_Level]
    seq_id: int | None = None
    prev_seq_id: int | None = None


class _Arg(msgspec.Struct, gc=False, rename="camel"):
    channel: str
    inst_id: str


class _Frame(msgspec.Struct, gc=False):
    arg: _Arg
    data: list[_Book]
    action: str = ""


class _Rest(msgspec.Struct, gc=False):
    code: str
    msg: str = ""
    data: list[_Book] = []


_FRAME = msgspec.json.Decoder(_Frame)
_REST = msgspec.json.Decoder(_Rest)


def read(data: str, symbol: str) -> Change:
    """Raises: ValueError, also for another market's frame."""
    frame = decode(_FRAME, data)
    if frame.arg.inst_id != symbol:
        raise ValueError(f"a frame of {frame.arg.inst_id[:64]!r}")
    if len(frame.data) != 1:
        raise ValueError(f"{len(frame.data)} books in one frame")
    book = frame.data[0]
    if frame.arg.channel != "books":
        return Change(True, book.bids, book.asks, number=book.seq_id)
    if frame.action == "snapshot":
        return Change(True, book.bids, book.asks, None, book.seq_id, number=book.seq_id)
    if frame.action != "update":
        raise ValueError(f"action {frame.action[:64]!r}")
    if (book.seq_id is None) != (book.prev_seq_id is None):
        raise ValueError("seqId without prevSeqId, or the other way round")
    return Change(False, book.bids, book.asks, book.prev_seq_id, book.seq_id, number=book.seq_id)


def rest(body: bytes) -> RestBook:
    """The answer to /api/v5/market/books. Raises: ValueError, also for an error under HTTP 200."""
    answer = decode(_REST, body)
    if answer.code != "0" or len(answer.data) != 1:
        raise ValueError(f"code {answer.code}: {answer.msg}; {len(answer.data)} books")
    book = answer.data[0]
    return RestBook(book.seq_id, book.bids, book.asks)


VENUE = Venue(read, lambda symbol: f"/api/v5/market/books?instId={symbol}&sz=400", rest)
