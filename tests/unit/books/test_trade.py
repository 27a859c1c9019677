"""What a stored trade says, by the goldens of every venue: the taker's side above all."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from app.books.trade import TRADES, Trade
from app.exchanges import EXCHANGES

FIXTURES = Path(__file__).parents[2] / "fixtures" / "frames"
FILES = {
    "binance": "binance/trade", "bybit": "bybit/publicTrade", "coinbase": "coinbase/matches", "okx": "okx/trades",
    "upbit": "upbit/trade",
}  # fmt: skip


def golden(name: str) -> list[str]:
    """Texts of the trades in a golden file, as they are stored."""
    lines = (FIXTURES / f"{name}.golden.jsonl").read_text().splitlines()
    return [
        e["data"]
        for line in lines
        for e in msgspec.json.decode(line)
        if isinstance(e, dict) and e.get("feed") == "trade"
    ]


def test_every_exchange_has_its_reader() -> None:
    assert set(TRADES) == set(EXCHANGES)


@pytest.mark.parametrize(("exchange", "name"), [*FILES.items(), ("coinbase", "coinbase_advanced/market_trades")])
def test_every_golden_trade_is_read(exchange: str, name: str) -> None:
    texts = golden(name)
    assert texts
    trades = [TRADES[exchange](text) for text in texts]
    assert all(trade.price > 0 and trade.size > 0 and trade.taker in ("buy", "sell") for trade in trades)


@pytest.mark.parametrize(
    ("exchange", "text", "expected"),
    [
        ("binance", '{"e":"trade","p":"61000.20","q":"0.5","m":false}', Trade(Decimal("61000.20"), Decimal("0.5"), "buy")),
        ("binance", '{"e":"trade","p":"61000.20","q":"0.5","m":true}', Trade(Decimal("61000.20"), Decimal("0.5"), "sell")),
        ("coinbase", '{"type":"match","side":"buy","size":"1","price":"2"}', Trade(Decimal(2), Decimal(1), "sell")),
        ("coinbase", '{"trade_id":"1","side":"SELL","size":"1","price":"2"}', Trade(Decimal(2), Decimal(1), "buy")),
        ("upbit", '{"tp":158000000.0,"tv":8.428e-05,"ab":"ASK"}', Trade(Decimal(158000000), Decimal("8.428e-05"), "sell")),
        ("upbit", '{"trade_price":10,"trade_volume":2,"ask_bid":"BID"}', Trade(Decimal(10), Decimal(2), "buy")),
        ("okx", '{"px":"84100.1","sz":"0.01","side":"buy"}', Trade(Decimal("84100.1"), Decimal("0.01"), "buy")),
        ("bybit", '{"p":"77140.5","v":"0.00389","S":"Sell"}', Trade(Decimal("77140.5"), Decimal("0.00389"), "sell")),
    ],
)  # fmt: skip
def test_price_size_and_taker(exchange: str, text: str, expected: Trade) -> None:
    assert TRADES[exchange](text) == expected


@pytest.mark.parametrize("exchange", sorted(TRADES))
@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"side":"up","S":"up","ab":"up","px":"1","sz":"1","p":"1","v":"1"}']
)
def test_what_is_no_trade_is_refused_with_words(exchange: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w{3}"):
        TRADES[exchange](text)
