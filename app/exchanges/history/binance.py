"""Binance spot: `historicalTrades` upwards by trade id, and where it is not served, `aggTrades`.

Both give 1000 rows. data-api.binance.vision serves no `historicalTrades`, and elsewhere it may ask for a key: any refusal
of it leads to `aggTrades`. An aggregate stands for the trades `f`..`l`; one that reaches out of the hole is left out, so
that no trade is stored twice. Its identity is its only trade's, or `f-l`. `fromId` of `aggTrades` is the number of an
aggregate: it begins by time, a minute early, and goes back by ids if that was late (an aggregate has at least one trade).

Source: binance-spot-api-docs, rest-api.md, faqs/market_data_only.md (2026-07); docs/exchanges.md grades each fact.
"""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from app.errors import FrameRejected
from app.exchanges.history.base import Ask, Between, History, Page, Past, Refused, of_this_market, refusal
from app.exchanges.wire import Int64, millis_us, parse, raw_text

LIMIT = 1000
SINGLE, AGGREGATE = "/api/v3/historicalTrades", "/api/v3/aggTrades"
#: Our clock and the venue's may differ by as much.
EARLY_MS = 60_000
INVALID_SYMBOL = -1121


class _Trade(msgspec.Struct, gc=False):
    """`{"id":28457,"price":"4.0","qty":"12.0","quoteQty":"48.0","time":1499865549590,"isBuyerMaker":true,"isBestMatch":true}`"""

    id: Int64
    time: Int64


class _Aggregate(msgspec.Struct, gc=False):
    """`{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":1498793709153,"m":true,"M":true}`"""

    a: Int64
    f: Int64
    l: Int64  # noqa: E741 - the venue's name
    T: Int64


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


_ROWS = msgspec.json.Decoder(tuple[msgspec.Raw, ...])
_TRADE = msgspec.json.Decoder(_Trade)
_AGGREGATE = msgspec.json.Decoder(_Aggregate)
_ERROR = msgspec.json.Decoder(_Error)


class BinanceHistory(History):
    reach = "every trade by its id"

    def first(self, wanted: Between, now_us: int) -> Ask:
        return _single(wanted, int(wanted.older_id) + 1)

    def read(self, wanted: Between, ask: Ask, status: int, body: bytes, now_us: int) -> Page | Refused:
        if status != 200:
            error = _error(body)
            if error.code == INVALID_SYMBOL:
                return refusal(status, f"{error.msg} (code {error.code})", gone=True)
            if ask.path.startswith(SINGLE):
                start = f"startTime={max(0, wanted.older_us // 1000 - EARLY_MS)}"
                return Page(next=_aggregate(wanted, start))
            return refusal(status, f"{error.msg} (code {error.code})")
        rows = parse(_ROWS, body)
        if ask.path.startswith(SINGLE):
            return self._trades(wanted, ask, rows)
        return self._aggregates(wanted, ask, rows)

    def _trades(self, wanted: Between, ask: Ask, rows: tuple[msgspec.Raw, ...]) -> Page:
        trades = []
        for raw in rows:
            trade = parse(_TRADE, raw)
            trades.append(Past(str(trade.id), millis_us(trade.time), raw_text(raw), trade.id, trade.id))
        newest = max((trade.last for trade in trades), default=ask.at - 1)
        known = of_this_market(wanted, trades)
        if newest >= int(wanted.newer_id) - 1:
            return Page(known, reached=True)
        if newest < ask.at:
            return Page(words="the venue has no such trades")
        return Page(known, _single(wanted, newest + 1))

    def _aggregates(self, wanted: Between, ask: Ask, rows: tuple[msgspec.Raw, ...]) -> Page:
        found = [(parse(_AGGREGATE, raw), raw) for raw in rows]
        if not found:
            return Page(words="the venue has no such aggregates")
        older, newer = int(wanted.older_id), int(wanted.newer_id)
        lowest, highest = min(found, key=lambda one: one[0].a)[0], max(found, key=lambda one: one[0].a)[0]
        if lowest.f > older + 1 and ask.way != "back":
            return Page(next=_aggregate(wanted, f"fromId={max(0, lowest.a - (lowest.f - older))}", "back"))
        trades = of_this_market(
            wanted,
            [
                Past(
                    str(one.l) if one.f == one.l else f"{one.f}-{one.l}", millis_us(one.T), raw_text(raw), one.f, one.l
                )
                for one, raw in found
                if older < one.l and one.f < newer
            ],
        )
        if highest.l >= newer - 1:
            return Page(trades, reached=True)
        if highest.a < ask.at:
            return Page(trades, words="its pages lead no further")
        return Page(trades, _aggregate(wanted, f"fromId={highest.a + 1}", "back", highest.a + 1))


def _single(wanted: Between, at: int) -> Ask:
    missing = int(wanted.newer_id) - at
    query = {"symbol": wanted.symbol.upper(), "fromId": at, "limit": max(1, min(LIMIT, missing))}
    return Ask(f"{SINGLE}?{urlencode(query)}", at)


def _aggregate(wanted: Between, start: str, way: str = "", at: int = 0) -> Ask:
    return Ask(f"{AGGREGATE}?symbol={wanted.symbol.upper()}&{start}&limit={LIMIT}", at, way)


def _error(body: bytes) -> _Error:
    try:
        return parse(_ERROR, body)
    except FrameRejected:  # what stands before the venue answers in HTML
        return _Error(0, "no JSON")
