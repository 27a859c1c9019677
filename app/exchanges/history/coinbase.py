"""Coinbase Exchange: `/products/{id}/trades` downwards by trade id, 1000 a page.

Source: docs.cdp.coinbase.com, Exchange "Get product trades" and pagination (2026): `after` is older than an id.
"""

from __future__ import annotations

import msgspec

from app.errors import FrameRejected
from app.exchanges.history.base import Ask, Between, History, Page, Past, Refused, down_to, of_this_market, refusal
from app.exchanges.wire import Int64, parse, raw_text, rfc3339_us

LIMIT = 1000


class _Trade(msgspec.Struct, gc=False):
    """`{"trade_id":74,"side":"buy","size":"0.01","price":"10.0","time":"2014-11-07T22:19:28.578544Z"}`"""

    trade_id: Int64
    time: str | None = None


class _Error(msgspec.Struct):
    message: str = ""


_ROWS = msgspec.json.Decoder(tuple[msgspec.Raw, ...])
_TRADE = msgspec.json.Decoder(_Trade)
_ERROR = msgspec.json.Decoder(_Error)


class CoinbaseHistory(History):
    reach = "every trade by its id"

    def first(self, wanted: Between, now_us: int) -> Ask:
        return _ask(wanted, int(wanted.newer_id))

    def read(self, wanted: Between, ask: Ask, status: int, body: bytes, now_us: int) -> Page | Refused:
        if status != 200:
            return refusal(status, words(body), gone=status == 404)
        trades = []
        for raw in parse(_ROWS, body):
            trade = parse(_TRADE, raw)
            trades.append(
                Past(str(trade.trade_id), rfc3339_us(trade.time), raw_text(raw), trade.trade_id, trade.trade_id)
            )
        # The page may go on below the hole, to trades of long ago.
        inside = tuple(trade for trade in trades if trade.first >= int(wanted.older_id))
        of_this_market(wanted, inside)
        following = _ask(wanted, min(trade.first for trade in trades)) if trades else None
        return down_to(wanted, tuple(trades), ask, following, self.reach)


def _ask(wanted: Between, at: int) -> Ask:
    missing = at - int(wanted.older_id) - 1
    return Ask(f"/products/{wanted.symbol}/trades?after={at}&limit={max(1, min(LIMIT, missing))}", at)


def words(body: bytes) -> str:
    """The message of a refusal, "no JSON" where something before the venue answered."""
    try:
        return parse(_ERROR, body).message
    except FrameRejected:
        return "no JSON"
