"""A venue's answer and the record are compared where they speak of the same levels of the same state."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from app.books.agreement import differences
from app.books.book import Book
from app.books.change import Change, RestBook

Levels = list[tuple[Decimal, Decimal]]
SIDE = st.lists(st.tuples(st.integers(1, 40).map(Decimal), st.integers(1, 3).map(Decimal)), max_size=12)


def levels(*pairs: tuple[str, str]) -> Levels:
    return [(Decimal(price), Decimal(size)) for price, size in pairs]


BIDS, ASKS = levels(("10", "1"), ("9", "2"), ("8", "3")), levels(("11", "1"), ("12", "2"), ("13", "3"))


@given(SIDE, SIDE)
def test_a_book_agrees_with_itself_however_it_is_written_and_however_deep_the_answer_is(
    bids: Levels, asks: Levels
) -> None:
    book = Book(bids, asks)
    written = RestBook(1, [(Decimal(f"{p}.000"), s) for p, s in book.bids.top(99)], book.asks.top(99))
    assert differences(book, written) == []
    for depth in (1, 5):
        assert differences(book, RestBook(1, book.bids.top(depth), book.asks.top(depth)), levels=3) == []


def test_a_size_a_missing_level_and_one_too_many_are_told() -> None:
    changed = RestBook(1, levels(("10", "1"), ("9", "7"), ("8", "3")), [*levels(("11.5", "1")), *ASKS[1:]])
    assert differences(Book(BIDS, ASKS), changed) == [
        "bid 9: 2 here, 7 at the venue",
        "ask 11: 1 here, 0 at the venue",
        "ask 11.5: 0 here, 1 at the venue",
    ]


def test_what_lies_deeper_than_either_shows_is_not_compared() -> None:
    assert differences(Book(BIDS, ASKS), RestBook(1, BIDS[:1], ASKS[:2])) == []
    assert differences(Book(BIDS[:2], ASKS), RestBook(1, BIDS, ASKS)) == []


def test_a_side_that_is_empty_here_alone_differs() -> None:
    assert differences(Book([], ASKS), RestBook(1, BIDS[:1], ASKS)) == ["bid 10: 0 here, 1 at the venue"]


def test_between_two_changes_only_what_the_later_one_does_not_touch_must_be_equal() -> None:
    between = RestBook(5, levels(("10", "4"), ("9", "2"), ("8", "3")), ASKS)
    touching = Change(False, levels(("10", "6")), [], 4, 7)
    assert differences(Book(BIDS, ASKS), between, touching) == []
    assert differences(Book(BIDS, ASKS), between, Change(False, levels(("9", "6")), [], 4, 7)) == [
        "bid 10: 1 here, 4 at the venue"
    ]
