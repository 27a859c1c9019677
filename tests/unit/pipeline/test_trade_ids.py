"""The ids that stand in an object, in whatever order its rows come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.objects.manifest import IdSpan
from app.pipeline.trade_ids import MAX_HOLES, TradeIds

Row = tuple[str, int, int | None, str, str]


def row(identity: object, data: str = "{}") -> Row:
    return str(identity), 1, None, data, "e"


def span(exchange: str, rows: list[Row], data_type: str = "trade") -> IdSpan | None:
    ids = TradeIds(exchange, data_type)
    assert [one for chunk in ids.counted([rows[:3], rows[3:]]) for one in chunk] == rows
    return ids.span()


@given(st.lists(st.integers(1, 60), min_size=1))
def test_the_holes_are_exactly_the_ids_between_that_are_not_there(ids: list[int]) -> None:
    found = span("binance", [row(n) for n in ids])
    assert found is not None
    missing = {n for a, b in found.holes for n in range(a, b + 1)}
    assert missing == set(range(min(ids), max(ids) + 1)) - set(ids)
    assert (found.first, found.last) == (min(ids), max(ids))
    assert all(a <= b for a, b in found.holes)


@given(st.lists(st.integers(1, 4), min_size=1), st.data())
def test_a_row_of_okx_stands_for_as_many_ids_as_it_counts(counts: list[int], data: st.DataObject) -> None:
    rows, last = [], 100
    for count in counts:
        last += count
        rows.append(row(last, f'{{"tradeId":"{last}","count":"{count}"}}'))
    found = span("okx", data.draw(st.permutations(rows)))
    assert found == IdSpan(first=101, last=last)


def test_an_aggregate_of_binance_stands_for_the_ids_that_it_names() -> None:
    assert span("binance", [row(1), row("4-7"), row(8), row(2)]) == IdSpan(first=1, last=8, holes=((3, 3),))
    assert span("binance", [row("2-3"), row(1)]) == IdSpan(first=1, last=3)


def test_where_ids_do_not_count_nothing_is_told() -> None:
    assert span("upbit", [row(1), row(2)]) is None
    assert span("binance", [row(1)], "orderbook") is None
    assert span("binance", []) is None
    assert span("binance", [row(1), row("1~ab")]) is None
    assert span("okx", [row(1, "?")]) is None


def test_a_record_in_pieces_is_not_listed() -> None:
    assert span("binance", [row(2 * n) for n in range(MAX_HOLES + 2)]) is None
    assert span("binance", [row(2 * n) for n in range(MAX_HOLES)]) is not None


@given(st.integers(0, 10**12), st.integers(1, 30), st.sampled_from(["{}", "0{}", "{}-{}", " {}"]), st.integers(0, 29))
def test_rows_that_come_together_tell_what_they_tell_one_by_one(first: int, size: int, other: str, at: int) -> None:
    """Most come together with ids that count one by one; one that is written otherwise makes no difference."""
    rows = [row(first + n) for n in range(size)]
    rows[at % size] = row(other.format(first + at % size, first + at % size))
    together, one_by_one = TradeIds("binance", "trade"), TradeIds("binance", "trade")
    list(together.counted([rows]))
    list(one_by_one.counted([one] for one in rows))
    assert together.span() == one_by_one.span()
