"""Coinbase, both feeds: a snapshot on subscription, then changes that nothing in the stored rows numbers.

`sequence_num` of the Advanced feed counts all frames of a connection, of which one market's rows are only some: holes are
known by the gaps that were recorded with it. `-USDC` products come as `-USD`.
Source: docs.cdp.coinbase.com, Exchange and Advanced Trade WebSocket channels (2026-06).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from app.books.change import Change, Pair, Venue, decode, unanswerable


class _Update(msgspec.Struct, gc=False):
    side: Literal["bid", "offer"]
    price_level: Decimal
    new_quantity: Decimal


class _Event(msgspec.Struct, gc=False):
    type: Literal["snapshot", "update"]
    product_id: str
    updates: list[_Update]


class _Frame(msgspec.Struct, gc=False):
    type: str = ""
    product_id: str = ""
    bids: list[Pair] = []
    asks: list[Pair] = []
    changes: list[tuple[Literal["buy", "sell"], Decimal, Decimal]] = []
    channel: str = ""
    events: list[_Event] = []


_FRAME = msgspec.json.Decoder(_Frame)


def read(data: str, symbol: str) -> Change:
    """Raises: ValueError, also for another market's frame."""
    frame = decode(_FRAME, data)
    if frame.channel == "l2_data":
        return _advanced(frame.events, symbol)
    if frame.product_id != symbol:
        raise ValueError(f"a frame of {frame.product_id[:64]!r}")
    if frame.type == "snapshot":
        return Change(True, frame.bids, frame.asks)
    if frame.type != "l2update":
        raise ValueError(f"a frame of type {frame.type[:64]!r}")
    bids = [(price, size) for side, price, size in frame.changes if side == "buy"]
    return Change(False, bids, [(price, size) for side, price, size in frame.changes if side == "sell"])


def _advanced(events: list[_Event], symbol: str) -> Change:
    """One change for all events of this product; those after a snapshot in the same frame change it."""
    names = {symbol, symbol.removesuffix("C")} if symbol.endswith("-USDC") else {symbol}
    whole = found = False
    bids: list[Pair] = []
    asks: list[Pair] = []
    for event in events:
        if event.product_id not in names:
            continue
        found = True
        if event.type == "snapshot":
            whole, bids, asks = True, [], []
        for update in event.updates:
            (bids if update.side == "bid" else asks).append((update.price_level, update.new_quantity))
    if not found:
        raise ValueError(f"a frame without {symbol}")
    return Change(whole, bids, asks)


VENUE = Venue(read, None, unanswerable)
