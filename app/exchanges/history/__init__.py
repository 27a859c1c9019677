"""Past trades, venue by venue: one line each, by exchange and source as in app/exchanges/__init__.py."""

from __future__ import annotations

from app.exchanges.history.base import History
from app.exchanges.history.binance import BinanceHistory
from app.exchanges.history.bybit import BybitHistory
from app.exchanges.history.coinbase import CoinbaseHistory
from app.exchanges.history.coinbase_advanced import CoinbaseAdvancedHistory
from app.exchanges.history.okx import OkxHistory
from app.exchanges.history.upbit import UpbitHistory

HISTORIES: dict[tuple[str, str | None], History] = {
    ("binance", None): BinanceHistory(),
    ("coinbase", None): CoinbaseHistory(),
    ("coinbase", "exchange"): CoinbaseHistory(),
    ("coinbase", "advanced"): CoinbaseAdvancedHistory(),
    ("upbit", None): UpbitHistory(),
    ("okx", None): OkxHistory(),
    ("bybit", None): BybitHistory(),
}
