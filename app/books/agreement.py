"""Does a venue's REST answer agree with the book rebuilt from the record? Compared at the same number, or not at all.

An answer may name a state between two stored changes (they come in batches). Then every level that the next change does not
touch must be equal: nothing else happened in between.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from app.books.book import Book, Side
from app.books.change import Change, RestBook

#: Levels of each side that are compared, where both have so many.
LEVELS = 20


def differences(book: Book, rest: RestBook, next_change: Change | None = None, levels: int = LEVELS) -> list[str]:
    """What the best `levels` levels say differently, in words; empty where they agree.

    With `next_change`, the answer lies before it, and its prices are left out.
    """
    asked = Book(rest.bids, rest.asks)
    found = []
    for name, ours, theirs, touched, worse in (
        ("bid", book.bids, asked.bids, next_change.bids if next_change else (), min),
        ("ask", book.asks, asked.asks, next_change.asks if next_change else (), max),
    ):
        left_out = {level[0] for level in touched}
        for price in _common(ours, theirs, levels, worse):
            held, said = ours.sizes.get(price, Decimal(0)), theirs.sizes.get(price, Decimal(0))
            if held != said and price not in left_out:
                found.append(f"{name} {price}: {held} here, {said} at the venue")
    return found


def _common(ours: Side, theirs: Side, levels: int, worse: Callable[..., Decimal]) -> list[Decimal]:
    """Prices of the best `levels` levels of both, as far down as both of them show all there is."""
    tops = [[price for price, _ in side.top(levels)] for side in (ours, theirs)]
    depth = min(map(len, tops))
    prices = list(dict.fromkeys(tops[0] + tops[1]))
    if depth == 0:
        return prices
    first, second = (top[depth - 1] for top in tops)
    edge = first if worse(first, second) == second else second  # the better of the two
    return [price for price in prices if worse(price, edge) == edge]
