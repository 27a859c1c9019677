"""One book: exact numbers, best first, and never more than the venue said."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.books.book import Book, Side

LEVELS = st.lists(st.tuples(st.integers(1, 30).map(Decimal), st.integers(0, 3).map(Decimal)))


@given(LEVELS, LEVELS, st.booleans())
def test_a_side_is_what_its_levels_say_and_is_always_sorted(first: list, later: list, bids: bool) -> None:  # type: ignore[type-arg]
    side = Side(first, bids=bids)
    for price, size in later:
        side.put(price, size)
    expected: dict[Decimal, Decimal] = {}
    for price, size in first + later:
        expected.pop(price, None)
        if size:
            expected[price] = size
    assert side.top(1000) == sorted(expected.items(), reverse=bids)
    assert side.top(3) == sorted(expected.items(), reverse=bids)[:3]
    assert side.best() == (sorted(expected, reverse=bids) or [None])[0]


@pytest.mark.parametrize("zero", ["0", "0.0", "0.00000000"])
def test_every_spelling_of_zero_removes_a_level(zero: str) -> None:
    book = Book([(Decimal("1.5"), Decimal("2"))])
    book.change([(Decimal("1.50"), Decimal(zero))], [])
    assert (book.bids.best(), book.bids.prices) == (None, [])


def test_a_price_of_zero_is_padding() -> None:
    padded = [(Decimal(0), Decimal(5)), (Decimal(0), Decimal(0))]
    book = Book(padded, padded)
    book.change(padded, padded)
    assert (book.bids.top(9), book.asks.top(9)) == ([], [])


@pytest.mark.parametrize(("bid", "ask", "crossed"), [("1", "2", False), ("2", "2", True), ("3", "2", True)])
def test_a_book_whose_best_bid_reaches_its_best_ask_is_crossed(bid: str, ask: str, crossed: bool) -> None:
    one = Decimal(1)
    assert Book([(Decimal(bid), one)], [(Decimal(ask), one)]).crossed() is crossed
    assert Book([(Decimal(bid), one)], []).crossed() is False
