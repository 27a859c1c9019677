"""Bybit V5 spot: `recent-trade`, the last 60 trades and no more.

It tells something only right after a reconnect, and only where the last trade known is still among the 60. That `execId`
is the `i` of the public topic is not documented: where it were not, the known trade is not found, and nothing is stored.

Source: bybit-exchange/docs, v5/market/recent-trade (2026-07); docs/exchanges.md grades each fact.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.exchanges.history.base import Ask, Between, History, Page, Past, Refused, refusal
from app.exchanges.wire import millis_us, parse, raw_text

LIMIT = 60
WRONG_PARAMETER, TOO_MANY = 10001, 10006
#: HTTP 403 "access too frequent" ends after so long; a 403 of another kind is for the place.
BANNED_S = 600.0
STAY_AWAY_S = 5.0


class _Trade(msgspec.Struct, gc=False, rename="camel"):
    """`{"execId":"2100000000007764263","symbol":"BTCUSDT","price":"16618.49","size":"0.00012","side":"Buy",
    "time":"1672052955758","isBlockTrade":false,"isRPITrade":true,"seq":"123456"}`"""

    exec_id: Annotated[str, msgspec.Meta(min_length=1)]
    time: str | None = None


class _List(msgspec.Struct, frozen=True):
    list: tuple[msgspec.Raw, ...] = ()


class _Answer(msgspec.Struct, rename="camel"):
    ret_code: int
    ret_msg: str = ""
    result: _List = _List()


_ANSWER = msgspec.json.Decoder(_Answer)
_TRADE = msgspec.json.Decoder(_Trade)


class BybitHistory(History):
    reach = "the last 60 trades"

    def first(self, wanted: Between, now_us: int) -> Ask:
        return Ask(f"/v5/market/recent-trade?category=spot&symbol={wanted.symbol}&limit={LIMIT}")

    def read(self, wanted: Between, ask: Ask, status: int, body: bytes, now_us: int) -> Page | Refused:
        if status == 403 and b"too frequent" in body:
            return Refused("HTTP 403: access too frequent", stay_away_s=BANNED_S)
        if status != 200:
            return refusal(status, "")
        answer = parse(_ANSWER, body)
        if answer.ret_code == TOO_MANY:
            return Refused(f"{answer.ret_code}: {answer.ret_msg}", stay_away_s=STAY_AWAY_S)
        if answer.ret_code != 0:
            gone = answer.ret_code == WRONG_PARAMETER and "symbol" in answer.ret_msg.lower()
            return refusal(status, f"{answer.ret_code}: {answer.ret_msg}", gone=gone)
        trades: list[Past] = []
        for raw in answer.result.list:  # newest first
            trade = parse(_TRADE, raw)
            if trade.exec_id == wanted.older_id:
                return Page(tuple(trades), reached=True)
            trades.append(Past(trade.exec_id, millis_us(trade.time), raw_text(raw)))
        return Page(words=f"trade {wanted.older_id} is not among the last {LIMIT}, and it tells no more")
