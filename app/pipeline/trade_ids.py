"""Which trade ids stand in an object, where the venue's count one by one: what is missing between them was never stored."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from app.model import TRADE
from app.objects.manifest import IdSpan
from app.objects.parquet import Row

#: A manifest lists so many holes; with more the record is in pieces, and no list would help.
MAX_HOLES = 1_000


class _OkxTrade(msgspec.Struct, gc=False):
    count: int = 1


_OKX = msgspec.json.Decoder(_OkxTrade, strict=False)


def _single(row: Row) -> tuple[int, int]:
    return int(row[0]), int(row[0])


def _binance(row: Row) -> tuple[int, int]:
    """A trade, or the aggregate `f-l` that came over REST where single trades are not served."""
    first, _, last = row[0].partition("-")
    return int(first), int(last or first)


def _okx(row: Row) -> tuple[int, int]:
    """A row stands for `count` trades, of which its id is the last. Source: okx.com/docs-v5, "Trades channel"."""
    return int(row[0]) - _OKX.decode(row[3]).count + 1, int(row[0])


#: First and last id of a row, by exchange. Upbit's and Bybit's ids skip.
_IDS: dict[str, Callable[[Row], tuple[int, int]]] = {"binance": _binance, "coinbase": _single, "okx": _okx}
#: Exchanges whose trade ids count one by one.
COUNTED = frozenset(_IDS)


def _run(ids: Sequence[str]) -> tuple[int, int] | None:
    """First and last of ids that count one by one, as most do; None for any others."""
    if not ids or not (ids[0].isascii() and ids[0].isdigit()):
        return None
    first = int(ids[0])
    return (first, first + len(ids) - 1) if list(ids) == list(map(str, range(first, first + len(ids)))) else None


class TradeIds:
    """The ids of one object, united as its rows pass."""

    def __init__(self, exchange: str, data_type: str) -> None:
        self._of = _IDS.get(exchange) if data_type == TRADE else None
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def counted(self, chunks: Iterable[Sequence[Row]]) -> Iterator[Sequence[Row]]:
        """`chunks` themselves. A row whose ids cannot be read ends the count, not the rows."""
        for chunk in chunks:
            if self._of is not None:
                try:
                    if self._of is not _okx and (run := _run([row[0] for row in chunk])):
                        self._add(*run)
                    else:
                        for row in chunk:
                            self._add(*self._of(row))
                except (ValueError, msgspec.DecodeError):
                    self._of = None
                if len(self._firsts) > MAX_HOLES:
                    self._of = None
            yield chunk

    def span(self) -> IdSpan | None:
        """The ids from the first to the last and the holes between them; None where they tell nothing."""
        if self._of is None or not self._firsts:
            return None
        holes = zip(self._lasts, self._firsts[1:], strict=False)
        return IdSpan(
            first=self._firsts[0], last=self._lasts[-1], holes=tuple((before + 1, after - 1) for before, after in holes)
        )

    def _add(self, first: int, last: int) -> None:
        firsts, lasts = self._firsts, self._lasts
        if lasts and first == lasts[-1] + 1:
            lasts[-1] = last
            return
        begin = bisect_left(lasts, first - 1)
        end = begin
        while end < len(firsts) and firsts[end] <= last + 1:
            end += 1
        if end > begin:
            first, last = min(first, firsts[begin]), max(last, lasts[end - 1])
        firsts[begin:end], lasts[begin:end] = [first], [last]
