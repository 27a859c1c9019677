"""Coinbase Advanced Trade: `/market/products/{id}/ticker`, trades of an interval of whole seconds, newest first.

Trade ids are those of the Exchange feed. There is no cursor: each page ends where the one before began, its second
included, so more trades in a second than a page holds cannot be passed; the rest is then said to be missing.

Source: docs.cdp.coinbase.com, Advanced Trade "Get Public Market Trades" (2026-06): `limit`, `start`, `end` (UNIX seconds),
`{"trades":[...]}`. The largest `limit` is not documented: 1000 is asked for, and fewer are as good.
"""

from __future__ import annotations

import msgspec

from app.exchanges.history.base import Ask, Between, History, Page, Past, Refused, of_this_market, refusal
from app.exchanges.history.coinbase import words
from app.exchanges.wire import Int64, parse, raw_text, rfc3339_us

LIMIT = 1000
#: Our clock and the venue's may differ by as much.
EARLY_S = 60


class _Trade(msgspec.Struct, gc=False):
    """`{"trade_id":"1100253488","product_id":"BTC-USD","price":"83277.26","size":"0.00058346",
    "time":"2026-09-30T02:39:53.977543Z","side":"SELL"}`"""

    trade_id: Int64
    time: str | None = None


class _Trades(msgspec.Struct):
    trades: tuple[msgspec.Raw, ...]


_TRADES = msgspec.json.Decoder(_Trades)
# Not strict: the id is a string of digits.
_TRADE = msgspec.json.Decoder(_Trade, strict=False)


class CoinbaseAdvancedHistory(History):
    reach = "trades of an interval"

    def first(self, wanted: Between, now_us: int) -> Ask:
        return _ask(wanted, wanted.newer_us // 1_000_000 + EARLY_S)

    def read(self, wanted: Between, ask: Ask, status: int, body: bytes, now_us: int) -> Page | Refused:
        if status != 200:
            return refusal(status, words(body), gone=status == 404)
        trades = []
        for raw in parse(_TRADES, body).trades:
            trade = parse(_TRADE, raw)
            trades.append(
                Past(str(trade.trade_id), rfc3339_us(trade.time), raw_text(raw), trade.trade_id, trade.trade_id)
            )
        known = of_this_market(wanted, trades)
        if not trades:
            return Page(words="the venue has no trades of that time")
        if min(trade.first for trade in trades) <= int(wanted.older_id) + 1:
            return Page(known, reached=True)
        times = [trade.exchange_us for trade in trades if trade.exchange_us is not None]
        end_s = min(times) // 1_000_000 + 1 if times else ask.at
        if end_s >= ask.at:
            return Page(known, words="its pages lead no further")
        return Page(known, _ask(wanted, end_s))


def _ask(wanted: Between, end_s: int) -> Ask:
    start_s = wanted.older_us // 1_000_000 - EARLY_S
    path = f"/api/v3/brokerage/market/products/{wanted.symbol}/ticker"
    return Ask(f"{path}?limit={LIMIT}&start={start_s}&end={end_s}", end_s)
