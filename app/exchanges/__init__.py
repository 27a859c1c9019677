"""The registry: every exchange, one line each, by the name that users write in `exchange`."""

from __future__ import annotations

from app.exchanges.base import Exchange
from app.exchanges.binance import Binance
from app.exchanges.bybit import Bybit
from app.exchanges.coinbase import Coinbase
from app.exchanges.okx import Okx
from app.exchanges.upbit import Upbit

EXCHANGES: dict[str, Exchange] = {
    Binance.name: Binance(),
    Coinbase.name: Coinbase(),
    Upbit.name: Upbit(),
    Okx.name: Okx(),
    Bybit.name: Bybit(),
}
