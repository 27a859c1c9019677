"""Spans of numbers, against sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.quality.numbers import Span, common, size, united, without

spans = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda s: (s[0], s[0] + s[1])), max_size=8)


def numbers(found: list[Span]) -> set[int]:
    return {n for first, last in found for n in range(first, last + 1)}


def proper(found: list[Span]) -> bool:
    """Sorted, and no two touch."""
    return all(a[1] + 1 < b[0] for a, b in pairwise(found)) and all(a <= b for a, b in found)


@given(spans, spans)
def test_spans_behave_as_the_sets_of_their_numbers(some: list[Span], others: list[Span]) -> None:
    assert (proper(united(some)), numbers(united(some))) == (True, numbers(some))
    assert size(united(some)) == len(numbers(some))
    assert (proper(without(some, others)), numbers(without(some, others))) == (True, numbers(some) - numbers(others))


@given(spans)
def test_common_is_what_more_than_one_span_holds(some: list[Span]) -> None:
    listed = [n for first, last in some for n in range(first, last + 1)]
    assert numbers(common(some)) == {n for n in listed if listed.count(n) > 1}
