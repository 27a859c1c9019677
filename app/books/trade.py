"""What one stored trade says: price, size, and who took. Read as the archive has it, not as the decoders do.

| venue | field | says |
| --- | --- | --- |
| Binance | `m` | true: the buyer was the maker, so the taker sold |
| Coinbase, both feeds | `side` | the maker's |
| Upbit | `ab`, `ask_bid` | the taker's: `ASK` sold, `BID` bought |
| OKX, Bybit | `side`, `S` | the taker's |

Source: docs/exchanges.md, with the venues' own pages.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import msgspec

from app.books.change import decode

BUY, SELL = "buy", "sell"


class Trade(NamedTuple):
    """`taker`: the side that took liquidity, `buy` or `sell`."""

    price: Decimal
    size: Decimal
    taker: str


class _Binance(msgspec.Struct, gc=False):
    p: Decimal
    q: Decimal
    m: bool


class _Coinbase(msgspec.Struct, gc=False):
    price: Decimal
    size: Decimal
    side: str


class _Upbit(msgspec.Struct, gc=False):
    tp: Decimal | None = None
    tv: Decimal | None = None
    ab: str = ""
    trade_price: Decimal = Decimal(0)
    trade_volume: Decimal = Decimal(0)
    ask_bid: str = ""


class _Okx(msgspec.Struct, gc=False):
    px: Decimal
    sz: Decimal
    side: str


class _Bybit(msgspec.Struct, gc=False):
    p: Decimal
    v: Decimal
    S: str


_BINANCE = msgspec.json.Decoder(_Binance)
_COINBASE = msgspec.json.Decoder(_Coinbase)
_UPBIT = msgspec.json.Decoder(_Upbit)
_OKX = msgspec.json.Decoder(_Okx)
_BYBIT = msgspec.json.Decoder(_Bybit)


def _taker(word: str, buys: str, sells: str) -> str:
    side = {buys: BUY, sells: SELL}.get(word.lower())
    if side is None:
        raise ValueError(f"a trade of side {word[:64]!r}")
    return side


def _binance(data: str) -> Trade:
    told = decode(_BINANCE, data)
    return Trade(told.p, told.q, SELL if told.m else BUY)


def _coinbase(data: str) -> Trade:
    told = decode(_COINBASE, data)
    return Trade(told.price, told.size, _taker(told.side, buys="sell", sells="buy"))


def _upbit(data: str) -> Trade:
    told = decode(_UPBIT, data)
    price, size = (told.trade_price, told.trade_volume) if told.tp is None or told.tv is None else (told.tp, told.tv)
    return Trade(price, size, _taker(told.ab or told.ask_bid, buys="bid", sells="ask"))


def _okx(data: str) -> Trade:
    told = decode(_OKX, data)
    return Trade(told.px, told.sz, _taker(told.side, buys="buy", sells="sell"))


def _bybit(data: str) -> Trade:
    told = decode(_BYBIT, data)
    return Trade(told.p, told.v, _taker(told.S, buys="buy", sells="sell"))


#: Exchange -> reader of a trade's text. Each raises ValueError with a sentence.
TRADES: dict[str, Callable[[str], Trade]] = {
    "binance": _binance,
    "coinbase": _coinbase,
    "upbit": _upbit,
    "okx": _okx,
    "bybit": _bybit,
}
