"""OKX: `history-trades` downwards by trade id, 100 a page, three months back.

REST gives single trades where a row of the `trades` channel stands for a range of ids. A single trade bears its own id,
which is the last of its range of one; only those wholly inside what is missing are stored, and app/pipeline/repair.py
leaves out those whose ids a stored row covers: so none stands beside a row that stands for it.

Source: okx.com/docs-v5, market data (2026-07); docs/exchanges.md grades each fact.
"""

from __future__ import annotations

import msgspec

from app.exchanges.history.base import Ask, Between, History, Page, Past, Refused, down_to, of_this_market, refusal
from app.exchanges.wire import Int64, millis_us, parse, raw_text

LIMIT = 100
TOO_MANY, NO_SUCH_INSTRUMENT = ("50011", "50061"), "51001"
#: The budget of the path is counted over 2 s.
STAY_AWAY_S = 2.0


class _Trade(msgspec.Struct, gc=False, rename="camel"):
    """`{"instId":"BTC-USDT","side":"sell","sz":"0.00001","source":"0","px":"29963.2","tradeId":"242720720","ts":"1654161646974"}`"""

    trade_id: Int64
    ts: Int64


class _Answer(msgspec.Struct):
    code: str
    msg: str = ""
    data: tuple[msgspec.Raw, ...] = ()


_ANSWER = msgspec.json.Decoder(_Answer)
# Not strict: numbers are strings.
_TRADE = msgspec.json.Decoder(_Trade, strict=False)


class OkxHistory(History):
    reach = "three months"

    def first(self, wanted: Between, now_us: int) -> Ask:
        return _ask(wanted, int(wanted.newer_id))

    def read(self, wanted: Between, ask: Ask, status: int, body: bytes, now_us: int) -> Page | Refused:
        if status in (403, 451):
            return refusal(status, "")
        answer = parse(_ANSWER, body)
        if answer.code in TOO_MANY:
            return Refused(f"{answer.code}: {answer.msg}", stay_away_s=STAY_AWAY_S)
        if status != 200 or answer.code != "0":
            return refusal(status, f"{answer.code}: {answer.msg}", gone=answer.code == NO_SUCH_INSTRUMENT)
        trades = []
        for raw in answer.data:
            trade = parse(_TRADE, raw)
            trades.append(Past(str(trade.trade_id), millis_us(trade.ts), raw_text(raw), trade.trade_id, trade.trade_id))
        of_this_market(wanted, [trade for trade in trades if trade.first >= int(wanted.older_id)])
        following = _ask(wanted, min(trade.first for trade in trades)) if trades else None
        return down_to(wanted, tuple(trades), ask, following, self.reach)


def _ask(wanted: Between, at: int) -> Ask:
    query = f"instId={wanted.symbol}&type=1&after={at}&limit={LIMIT}"
    return Ask(f"/api/v5/market/history-trades?{query}", at)
