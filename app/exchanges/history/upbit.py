"""Upbit: `trades/ticks` downwards by cursor, 500 a page, one UTC day at a time, seven days back.

Ids say nothing about holes: the walk goes from the first trade after the seam down until the last one before it comes.
Only then is the interval proved. Ids are not promised to be in order, so trades of the last seconds before that one are
given too; what is stored already is told by identity.

Source: docs.upbit.com, recent trades (2026-10); docs/exchanges.md grades each fact.
"""

from __future__ import annotations

import msgspec

from app.errors import FrameRejected
from app.exchanges.history.base import Ask, Between, History, Page, Past, Refused, of_this_market, refusal
from app.exchanges.wire import DETAIL_CHARS, Int64, millis_us, parse, raw_text

LIMIT = 500
DAYS = 7
DAY_US = 86_400 * 1_000_000
#: Trades so much older than the last known one are not given.
DISORDER_US = 5 * 1_000_000
#: So far below the last known trade's time the walk ends without it: clocks may differ by as much.
PASSED_US = 60 * 1_000_000


class _Trade(msgspec.Struct, gc=False):
    """`{"market":"KRW-BTC","trade_date_utc":"2018-04-18","trade_time_utc":"10:19:58","timestamp":1524046798000,
    "trade_price":8616000.0,"trade_volume":0.03060688,"ask_bid":"ASK","sequential_id":1524046798000000}`"""

    sequential_id: Int64
    timestamp: Int64


class _Words(msgspec.Struct, frozen=True):
    message: str = ""


class _Error(msgspec.Struct):
    error: _Words = _Words()


_ROWS = msgspec.json.Decoder(tuple[msgspec.Raw, ...])
_TRADE = msgspec.json.Decoder(_Trade)
_ERROR = msgspec.json.Decoder(_Error)


class UpbitHistory(History):
    reach = "seven days"

    def first(self, wanted: Between, now_us: int) -> Ask:
        return _ask(wanted, int(wanted.newer_id), min(DAYS, max(0, now_us // DAY_US - wanted.newer_us // DAY_US)))

    def read(self, wanted: Between, ask: Ask, status: int, body: bytes, now_us: int) -> Page | Refused:
        if status != 200:
            return refusal(status, _words(body), gone=status == 404)
        trades = []
        for raw in parse(_ROWS, body):
            trade = parse(_TRADE, raw)
            trades.append(Past(str(trade.sequential_id), millis_us(trade.timestamp), raw_text(raw)))
        older = next((trade for trade in trades if trade.sequence_id == wanted.older_id), None)
        if older is not None:
            not_before_us = (older.exchange_us or 0) - DISORDER_US
            return Page(tuple(trade for trade in trades if (trade.exchange_us or 0) >= not_before_us), reached=True)
        if any((trade.exchange_us or 0) < wanted.older_us - PASSED_US for trade in trades):
            kept = tuple(trade for trade in trades if (trade.exchange_us or 0) >= wanted.older_us - PASSED_US)
            return Page(kept, words=f"trade {wanted.older_id} is not where its time would have it")
        of_this_market(wanted, trades)
        if len(trades) == LIMIT:
            lowest = min(int(trade.sequence_id) for trade in trades)
            if lowest < ask.at:
                return Page(tuple(trades), _ask(wanted, lowest, int(ask.way)))
            return Page(tuple(trades), words="its pages lead no further")
        day = int(ask.way) + 1
        lowest = min((int(trade.sequence_id) for trade in trades), default=ask.at)
        if day > DAYS or now_us // DAY_US - day < (wanted.older_us - DAY_US) // DAY_US:
            return Page(tuple(trades), words=f"trade {wanted.older_id} is not among those of {self.reach}")
        return Page(tuple(trades), _ask(wanted, lowest, day))


def _ask(wanted: Between, at: int, days_ago: int) -> Ask:
    """`days_ago` 0 is left out: then it is the day of the newest trade."""
    query = f"market={wanted.symbol}&count={LIMIT}&cursor={at}" + (f"&days_ago={days_ago}" if days_ago else "")
    return Ask(f"/v1/trades/ticks?{query}", at, str(days_ago))


def _words(body: bytes) -> str:
    try:
        return parse(_ERROR, body).error.message[:DETAIL_CHARS]
    except FrameRejected:
        return "no JSON"
