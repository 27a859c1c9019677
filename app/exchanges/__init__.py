"""The registry: every exchange, one line each, by the name that users write in `exchange`.

A venue may have more than one public feed: `SOURCES` has those that `[exchanges.<name>] source` chooses between. Markets,
keys and files are named by the exchange, whichever feed they came over.
"""

from __future__ import annotations

from app.exchanges.base import Exchange
from app.exchanges.binance import Binance
from app.exchanges.bybit import Bybit
from app.exchanges.coinbase import Coinbase
from app.exchanges.coinbase_advanced import CoinbaseAdvanced
from app.exchanges.okx import Okx
from app.exchanges.upbit import Upbit

EXCHANGES: dict[str, Exchange] = {
    Binance.name: Binance(),
    Coinbase.name: Coinbase(),
    Upbit.name: Upbit(),
    Okx.name: Okx(),
    Bybit.name: Bybit(),
}

#: By exchange and `source`.
SOURCES: dict[tuple[str, str], Exchange] = {
    (Coinbase.name, "exchange"): EXCHANGES[Coinbase.name],
    (CoinbaseAdvanced.name, "advanced"): CoinbaseAdvanced(),
}


def exchange_of(name: str, source: str | None) -> Exchange:
    """The exchange `name` over its feed `source`; None is the one in the registry."""
    return EXCHANGES[name] if source is None else SOURCES[name, source]
