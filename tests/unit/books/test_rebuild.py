"""A book goes on only where the next row follows, whichever connection brought it, and refuses to cross a hole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.books.change import Row
from app.books.rebuild import OVERLAP_US, Applied, Continuity, Rebuild, Verdict
from app.books.venues import VENUES
from app.exchanges import EXCHANGES
from tests.support.books import START_US, applied, binance_diff, bybit, changes, okx, okx_snapshot, row, shown

A, B = "aa" * 16, "bb" * 16
BEST = ([("100", "1")], [("101", "1")])


def said(found: list[Applied]) -> list[tuple[str, str]]:
    return [(one.verdict.value, one.continuity.value) for one in found]


def test_every_exchange_has_a_reader_of_its_books() -> None:
    assert VENUES.keys() == EXCHANGES.keys()


def test_a_change_before_any_snapshot_makes_no_book_though_its_numbers_follow() -> None:
    rebuild = Rebuild("okx", "BTC-USDT")
    found = applied(rebuild, [row(okx(1, 5), 0), row(okx(5, 9), 1), row(okx_snapshot(9, *BEST), 2)])
    assert said(found) == [("refused", "start"), ("refused", "proved"), ("snapshot", "proved")]
    assert shown(rebuild.book) == BEST


def test_a_hole_takes_the_book_away_until_the_next_snapshot() -> None:
    rebuild = Rebuild("okx", "BTC-USDT")
    rows = [okx_snapshot(10, *BEST), okx(10, 20), okx(30, 40), okx(40, 50)]
    found = applied(rebuild, [row(text, n) for n, text in enumerate(rows)])
    assert said(found) == [("snapshot", "start"), ("delta", "proved"), ("refused", "broken"), ("refused", "proved")]
    assert found[2].detail == "okx/BTC-USDT: nothing between 20 and 30 was stored"
    assert (found[2].before_us, rebuild.book) == (START_US + 100_000, None)
    rebuild.apply(row(okx_snapshot(50, *BEST), 4))
    assert shown(rebuild.book) == BEST


def test_the_snapshot_of_a_connection_that_came_too_late_shows_what_is_missing() -> None:
    rebuild = Rebuild("okx", "BTC-USDT")
    found = applied(
        rebuild,
        [
            row(okx_snapshot(10, *BEST), 0, epoch=A),
            row(okx_snapshot(30, *BEST), 1, epoch=B),
            row(okx(30, 40), us=START_US + OVERLAP_US + 200_000, epoch=B),
        ],
    )
    assert said(found) == [("snapshot", "start"), ("snapshot", "pending"), ("delta", "proved")]
    assert [seam[:3] for seam in rebuild.decided] == [(False, START_US, START_US + 100_000)]


def test_a_change_of_a_new_epoch_that_follows_by_number_continues_the_book() -> None:
    rebuild = Rebuild("okx", "BTC-USDT")
    rows = [row(okx_snapshot(10, *BEST), 0, epoch=A), row(okx(10, 20, [("99", "1")]), 1, epoch=B)]
    assert said(applied(rebuild, rows))[1] == ("delta", "proved")


def test_without_numbers_a_change_of_a_new_epoch_is_refused() -> None:
    snapshot = '{"type":"snapshot","product_id":"BTC-USD","bids":[["1","1"]],"asks":[["2","1"]]}'
    change = '{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1","0"],["buy","1.5","3"]],"time":"x"}'
    rebuild = Rebuild("coinbase", "BTC-USD")
    rows = [row(snapshot, 0, epoch=A), row(change, 1, epoch=A), row(change, 2, epoch=B)]
    assert said(applied(rebuild, rows)) == [
        ("snapshot", "unknowable"), ("delta", "unknowable"), ("refused", "unknowable"),
    ]  # fmt: skip
    assert rebuild.book is None


def test_a_row_that_cannot_be_read_leaves_no_book() -> None:
    rebuild = Rebuild("bybit", "BTCUSDT")
    rebuild.apply(row(bybit(5, *BEST, kind="snapshot"), 0))
    bad = rebuild.apply(row(bybit(6, [("100", "0.-10000")], []), 1))
    assert (bad.verdict, rebuild.book) == (Verdict.REFUSED, None)
    assert rebuild.apply(row(bybit(7, [], []), 2)).continuity is Continuity.BROKEN


@pytest.mark.parametrize("size", ["NaN", "sNaN"])
def test_a_size_that_is_no_number_leaves_no_book(size: str) -> None:
    rebuild = Rebuild("okx", "BTC-USDT")
    rebuild.apply(row(okx_snapshot(1, *BEST), 0))
    assert rebuild.apply(row(okx(1, 2, [(size, "1")]), 1)).verdict is Verdict.REFUSED
    assert rebuild.book is None


@pytest.mark.parametrize("exchange", sorted(VENUES))
@given(text=st.text() | st.from_regex(r'\{"(stream|data|arg|type|topic|ty|events|channel)":.{0,30}\}'))
@settings(max_examples=20, deadline=None)
def test_no_text_whatever_makes_a_reader_fail_otherwise_than_by_refusing(exchange: str, text: str) -> None:
    assert Rebuild(exchange, "X").apply(row(text)).verdict in (Verdict.REFUSED, Verdict.SNAPSHOT)


def okx_chain(count: int) -> list[str]:
    levels = list(changes(count))
    return [okx(10 * n, 10 * n + 10, [levels[n]]) for n in range(count)]


def bybit_chain(count: int) -> list[str]:
    levels = list(changes(count))
    return [bybit(100 + n + 1, [levels[n]], []) for n in range(count)]


def binance_chain(count: int) -> list[str]:
    levels = list(changes(count))
    return [binance_diff(3 * n + 1, 3 * n + 3, [levels[n]], []) for n in range(count)]


def book_at(exchange: str, symbol: str, first: Row, chain: list[str]) -> Rebuild:
    rebuild = Rebuild(exchange, symbol)
    applied(rebuild, [first, *(row(text, n + 1) for n, text in enumerate(chain))])
    return rebuild


BASE = ([("100", "9"), ("50", "1")], [("101", "1"), ("102", "7")])
VENUE = {
    "okx": ("BTC-USDT", okx_chain, lambda bids, asks, n: okx_snapshot(10 * n, bids, asks)),
    "bybit": ("BTCUSDT", bybit_chain, lambda bids, asks, n: bybit(100 + n, bids, asks, kind="snapshot")),
}


@pytest.mark.parametrize("exchange", sorted(VENUE))
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_two_overlapping_connections_stored_once_are_read_as_one_series(exchange: str, data: st.DataObject) -> None:
    """B joins somewhere while A goes on, ahead of it or behind; what both bring is stored when the first of them did."""
    symbol, make, snapshot = VENUE[exchange]
    chain = make(30)
    begin = data.draw(st.integers(0, 20), "B's snapshot has this many changes")
    end = data.draw(st.integers(begin, 30), "A ends after this many")
    first = row(snapshot(*BASE, 0), epoch=A)
    until_begin = book_at(exchange, symbol, first, chain[:begin])
    arriving = {A: [(n, chain[n]) for n in range(end)], B: [(n, chain[n]) for n in range(begin, 30)]}
    arriving[B].insert(0, (-1, snapshot(*shown(until_begin.book), begin)))
    stored, seen = [first], set()
    while arriving[A] or arriving[B]:
        heads = [epoch for epoch in (A, B) if arriving[epoch]]
        epoch = data.draw(st.sampled_from(heads), "the next comes by") if len(heads) == 2 else heads[0]
        n, text = arriving[epoch].pop(0)
        if n not in seen:
            seen.add(n)
            stored.append(row(text, len(stored), epoch=epoch))
    rebuild = Rebuild(exchange, symbol)
    found = applied(rebuild, stored)
    rebuild.apply(row(snapshot([], [], 10**6), us=START_US + 2 * OVERLAP_US, epoch="cc" * 16))  # time passes
    assert Continuity.BROKEN not in {one.continuity for one in found}
    assert [seam.joined for seam in rebuild.decided] in ([], [True])
    again = Rebuild(exchange, symbol)
    applied(again, stored)
    assert shown(again.book) == shown(book_at(exchange, symbol, first, chain).book)


@pytest.mark.parametrize(
    ("exchange", "symbol", "make"),
    [("okx", "BTC-USDT", okx_chain), ("bybit", "BTCUSDT", bybit_chain), ("binance", "btcusdt", binance_chain)],
)
@given(missing=st.integers(1, 18))
@settings(max_examples=20, deadline=None)
def test_a_change_that_is_missing_is_noticed_at_exactly_the_next_row(
    exchange: str, symbol: str, make: Callable[[int], list[str]], missing: int
) -> None:
    chain = make(20)
    found = applied(
        Rebuild(exchange, symbol), [row(text, n) for n, text in enumerate(chain[:missing] + chain[missing + 1 :])]
    )
    continuity = [one.continuity for one in found]
    assert continuity[missing] is Continuity.BROKEN
    assert set(continuity[1:missing] + continuity[missing + 1 :]) <= {Continuity.PROVED}
    assert found[missing].verdict is Verdict.REFUSED
