"""Upbit: every frame is the whole top of the book. A REST answer names its state by the time, which several may share.

Source: docs.upbit.com, websocket-orderbook, "List orderbooks" (2026-10).
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from app.books.change import Change, RestBook, Venue, decode


class _Unit(msgspec.Struct, gc=False):
    ap: Decimal = Decimal(0)
    bp: Decimal = Decimal(0)
    # "as" is a word of Python
    ask: Decimal = msgspec.field(default=Decimal(0), name="as")
    bs: Decimal = Decimal(0)


class _LongUnit(msgspec.Struct, gc=False):
    ask_price: Decimal
    bid_price: Decimal
    ask_size: Decimal
    bid_size: Decimal


class _Frame(msgspec.Struct, gc=False):
    cd: str = ""
    tms: int | None = None
    obu: list[_Unit] = []
    code: str = ""
    timestamp: int | None = None
    orderbook_units: list[_LongUnit] = []


class _Rest(msgspec.Struct, gc=False):
    market: str
    timestamp: int
    orderbook_units: list[_LongUnit]


_FRAME = msgspec.json.Decoder(_Frame)
_REST = msgspec.json.Decoder(list[_Rest])


def read(data: str, symbol: str) -> Change:
    """Raises: ValueError, also for another market's frame."""
    frame = decode(_FRAME, data)
    if (frame.cd or frame.code) != symbol:
        raise ValueError(f"a frame of {(frame.cd or frame.code)[:64]!r}")
    number = frame.timestamp if frame.tms is None else frame.tms
    if frame.orderbook_units:
        bids, asks = _sides(frame.orderbook_units)
    else:
        bids, asks = [(u.bp, u.bs) for u in frame.obu], [(u.ap, u.ask) for u in frame.obu]
    return Change(True, bids, asks, number=number)


def rest(body: bytes) -> RestBook:
    """The answer to /v1/orderbook for one market. Raises: ValueError."""
    answer = decode(_REST, body)
    if len(answer) != 1:
        raise ValueError(f"{len(answer)} books in the answer")
    return RestBook(answer[0].timestamp, *_sides(answer[0].orderbook_units))


def _sides(units: list[_LongUnit]) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
    return [(u.bid_price, u.bid_size) for u in units], [(u.ask_price, u.ask_size) for u in units]


VENUE = Venue(read, lambda symbol: f"/v1/orderbook?markets={symbol}", rest, ambiguous=True)
