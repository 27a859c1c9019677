"""Sets of numbers as sorted spans that do not touch: [(1, 4), (7, 7)] is 1, 2, 3, 4, 7. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]


def united(spans: Iterable[Span]) -> list[Span]:
    """All numbers of `spans`, which may overlap and come in any order.

    >>> united([(5, 6), (1, 2), (3, 3), (2, 3)])
    [(1, 3), (5, 6)]
    """
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def without(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """The numbers of `spans` that are not in `taken`.

    >>> without([(1, 9)], [(3, 4), (9, 12)])
    [(1, 2), (5, 8)]
    """
    left: list[Span] = []
    holes = united(taken)
    at = 0
    for first, last in united(spans):
        while at < len(holes) and holes[at][1] < first:
            at += 1
        here = at
        while here < len(holes) and holes[here][0] <= last:
            if holes[here][0] > first:
                left.append((first, holes[here][0] - 1))
            first = holes[here][1] + 1
            here += 1
        if first <= last:
            left.append((first, last))
    return left


def common(spans: Iterable[Span]) -> list[Span]:
    """The numbers that stand in more than one of `spans`.

    >>> common([(1, 5), (4, 8), (10, 10)])
    [(4, 5)]
    """
    twice: list[Span] = []
    reached = 0
    for first, last in sorted(spans):
        if first <= reached:
            twice.append((first, min(last, reached)))
        reached = max(reached, last)
    return united(twice)


def size(spans: Iterable[Span]) -> int:
    """How many numbers; `spans` must not overlap."""
    return sum(last - first + 1 for first, last in spans)
