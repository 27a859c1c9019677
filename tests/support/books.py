"""Rows of order books for tests: made up in a venue's own words, or taken from the captured frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.books.book import Book
from app.books.change import Row
from app.books.rebuild import Applied, Rebuild

START_US = 1_790_000_000_000_000
EPOCH = "ab" * 16
Levels = list[tuple[str, str]]


def row(data: str, n: int = 0, *, epoch: str = EPOCH, us: int | None = None) -> Row:
    """Row `n` of a feed that has ten a second."""
    return Row(f"{epoch[:2]}-{n}", START_US + n * 100_000 if us is None else us, None, data, epoch)


def captured(path: Path, wanted: Callable[[str], bool]) -> list[Row]:
    """The frames of a captured file that are wanted, as rows of one epoch."""
    frames = [line for line in path.read_text(encoding="utf-8").splitlines() if wanted(line)]
    assert frames
    return [row(frame, n) for n, frame in enumerate(frames)]


def applied(rebuild: Rebuild, rows: Iterable[Row]) -> list[Applied]:
    """What each row came to."""
    return [rebuild.apply(one) for one in rows]


def texts(levels: Iterable[tuple[Decimal, Decimal]]) -> Levels:
    """Levels as the venue wrote them: Decimal keeps every digit."""
    return [(f"{price:f}", f"{size:f}") for price, size in levels]


def shown(book: Book | None, levels: int = 1000) -> tuple[Levels, Levels]:
    """Bids and asks, best first, as text."""
    assert book is not None
    return texts(book.bids.top(levels)), texts(book.asks.top(levels))


def naive(frames: Iterable[tuple[bool, Iterable[Any], Iterable[Any]]]) -> tuple[Levels, Levels]:
    """The same book made the plainest way: dictionaries, sorted at the end."""
    sides: tuple[dict[Decimal, str], dict[Decimal, str]] = ({}, {})
    for whole, *both in frames:
        for side, levels in zip(sides, both, strict=True):
            if whole:
                side.clear()
            for price, size in levels:
                side.pop(Decimal(price), None)
                if Decimal(size):
                    side[Decimal(price)] = f"{Decimal(price):f} {size}"
    bids, asks = ([side[price] for price in sorted(side)] for side in sides)
    pairs = [[(t.split()[0], t.split()[1]) for t in side] for side in (bids[::-1], asks)]
    return pairs[0], pairs[1]


def okx(before: int, seq: int, bids: Levels = [], asks: Levels = [], *, action: str = "update") -> str:  # noqa: B006
    """A frame of OKX's `books`."""
    book = {
        "asks": [[p, s, "0", "1"] for p, s in asks], "bids": [[p, s, "0", "1"] for p, s in bids],
        "ts": "1790439595000", "checksum": 0, "seqId": seq, "prevSeqId": before,
    }  # fmt: skip
    return json.dumps({"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": action, "data": [book]})


def okx_snapshot(seq: int, bids: Levels, asks: Levels) -> str:
    return okx(-1, seq, bids, asks, action="snapshot")


def bybit(u: int, bids: Levels, asks: Levels, *, kind: str = "delta", seq: int | None = None, depth: int = 50) -> str:
    """A frame of Bybit's `orderbook.50`."""
    book = {"s": "BTCUSDT", "b": bids, "a": asks, "u": u, "seq": 10 * u if seq is None else seq}
    return json.dumps({"topic": f"orderbook.{depth}.BTCUSDT", "ts": 1, "type": kind, "data": book, "cts": 1})


def binance_diff(first: int, last: int, bids: Levels, asks: Levels) -> str:
    """A frame of Binance's `depth@100ms`."""
    data = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": asks}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": data})


def binance_partial(number: int, bids: Levels, asks: Levels) -> str:
    data = {"lastUpdateId": number, "bids": bids, "asks": asks}
    return json.dumps({"stream": "btcusdt@depth20@100ms", "data": data})


def changes(count: int) -> Iterator[tuple[str, str]]:
    """Endless enough: a price and a size for each change, some of them removals."""
    for n in range(count):
        yield str(100 - n % 7), str(n % 5)
