"""The venues whose books can be rebuilt, by exchange."""

from __future__ import annotations

from app.books import binance, bybit, coinbase, okx, upbit
from app.books.change import Venue

VENUES: dict[str, Venue] = {
    "binance": binance.VENUE,
    "coinbase": coinbase.VENUE,
    "upbit": upbit.VENUE,
    "okx": okx.VENUE,
    "bybit": bybit.VENUE,
}
