"""What an hour is worth, in one word: of manifests, of segments that are not archived yet, and of both together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.objects.manifest import GapRecord, IdSpan, Manifest
from app.pipeline.certificate import Findings
from app.pipeline.facts import judged
from app.pipeline.hours import (
    GAP,
    HOUR_US,
    PROVED,
    REPAIRED,
    STATES,
    UNKNOWABLE,
    Holding,
    Part,
    cells,
    hours_of,
    part,
    so_far,
    until,
)
from tests.support.manifests import EPOCH, FIRST_US, LAST_US, OPENED_US, SEALED_US, check, described, gap, loss, repair

SECOND_US = 1_000_000


def holed(**more: Any) -> Manifest:
    """Trades 1 to 100 without 40 to 49."""
    return described(rows=90, ids=IdSpan(first=1, last=100, holes=((40, 49),)), gaps=(gap(40, 40, 49),), **more)


@pytest.mark.parametrize(
    ("manifest", "state", "value"),
    [
        (described(), PROVED, 1.0),
        (holed(), GAP, 0.9),
        (holed(repairs=(repair(40, "repaired", 10),)), REPAIRED, 1.0),
        (holed(repairs=(repair(40, "partly", 4),)), GAP, 90 / 96),
        (described("upbit", ids=None), UNKNOWABLE, None),
        (described("upbit", ids=None, losses=(loss(None),)), UNKNOWABLE, None),
        (described("upbit", ids=None, losses=(loss(3),)), GAP, None),
        (described("okx", "orderbook", checks=(check("proved"),)), PROVED, 1.0),
        (described("okx", "orderbook", checks=(check("broken"),)), GAP, None),
        (described("okx", "orderbook", checks=(check("proved"),), gaps=(gap(3, 3, 3),)), GAP, None),
        (described("okx", "orderbook", checks=(check("proved"), check("broken", kind="crossed"))), UNKNOWABLE, None),
    ],
)
def test_the_state_of_an_object(manifest: Manifest, state: str, value: float | None) -> None:
    told = part(judged(manifest))
    assert (told.state, told.value) == (state, value)
    assert (told.reasons == ()) == (state in (PROVED, REPAIRED))


@pytest.mark.parametrize(
    ("opened_us", "sealed_us", "last_us", "hours"),
    [
        (0, HOUR_US + 3 * SECOND_US, HOUR_US + SECOND_US, [0]),  # some rows come a moment after the turn
        (HOUR_US // 2, HOUR_US + SECOND_US, HOUR_US - 1, [0]),
        (0, 5 * HOUR_US, HOUR_US // 2, [0]),  # the machine was off: nothing after the last row
        (0, 3 * HOUR_US, 3 * HOUR_US - 1, [0, 1, 2]),  # a long segment
        (HOUR_US - SECOND_US, HOUR_US, HOUR_US - 1, [0]),  # a short one
    ],
)
def test_a_segment_belongs_to_the_hours_in_which_it_was_filled(
    opened_us: int, sealed_us: int, last_us: int, hours: list[int]
) -> None:
    told = described(opened_us=opened_us, sealed_us=sealed_us, first_collector_us=opened_us, last_collector_us=last_us)
    assert [hour_us // HOUR_US for hour_us in hours_of(opened_us, until(told))] == hours


def a_part(state: str, value: float | None, rows: int = 10) -> Part:
    return Part(0, 1, state, value, rows, 0, 0, 0, 0, False, ())


def test_the_worst_part_is_the_hours_state_and_what_nobody_knows_of_one_is_not_known_of_all() -> None:
    (cell,) = cells([a_part(PROVED, 1.0, 30), a_part(GAP, 0.5, 10)]).values()
    assert (cell.state, cell.value, cell.rows, cell.parts) == (GAP, 40 / 50, 40, 2)
    (cell,) = cells([a_part(REPAIRED, 1.0), a_part(UNKNOWABLE, None)]).values()
    assert (cell.state, cell.value) == (UNKNOWABLE, None)
    assert cells([]) == {}


VALUES = st.floats(min_value=0.001, max_value=1.0, exclude_max=True) | st.just(1.0)


@given(st.lists(st.tuples(st.sampled_from(STATES), VALUES, st.integers(1, 10**9)), min_size=1, max_size=8))
def test_an_hour_is_complete_only_where_each_part_is(parts: list[tuple[str, float, int]]) -> None:
    (cell,) = cells([a_part(*one) for one in parts]).values()
    values = [value for _, value, _ in parts]
    assert cell.value is not None
    assert min(values) - 1e-9 <= cell.value <= max(values) + 1e-9
    assert (cell.value == 1.0) == all(value == 1.0 for value in values)
    assert STATES.index(cell.state) == min(STATES.index(state) for state, _, _ in parts)


def a_range(first_id: str, last_id: str, stored: int) -> dict[str, Any]:
    return {
        "epoch": EPOCH, "first": 1, "last": stored, "stored": stored, "duplicates": 0, "quarantined": 0, "conflicts": 0,
        "first_id": first_id, "last_id": last_id, "first_us": FIRST_US, "last_us": LAST_US,
    }  # fmt: skip


def running(feed: tuple[str, str, str], ranges: list[dict[str, Any]], found: Findings) -> Part | None:
    told = so_far(Holding(feed, ranges, []), OPENED_US, SEALED_US, found)
    return told and part(told, provisional=True)


TRADES = ("binance", "S", "trade")
HOLE: GapRecord = gap(40, 40, 49)


@pytest.mark.parametrize(
    ("repairs", "state", "value"),
    [((), GAP, 90 / 100), ((repair(40, "partly", 4),), GAP, 90 / 96), ((repair(40, "repaired", 10),), REPAIRED, 1.0)],
)
def test_trades_that_are_not_archived_yet_are_judged_by_the_gaps_on_record(
    repairs: tuple[Any, ...], state: str, value: float
) -> None:
    told = running(TRADES, [a_range("1", "100", 90)], Findings(gaps=(HOLE,), repairs=repairs))
    assert told is not None
    assert (told.state, told.value, told.rows, told.provisional) == (state, value, 90, True)


def test_without_gaps_they_are_proved_so_far_and_ids_that_do_not_count_prove_nothing() -> None:
    told = running(TRADES, [a_range("1", "100", 100)], Findings())
    assert told is not None and (told.state, told.value) == (PROVED, 1.0)
    told = running(("upbit", "S", "trade"), [a_range("1", "100", 100)], Findings())
    assert told is not None and told.state == UNKNOWABLE
    told = running(TRADES, [a_range("x", "y", 100)], Findings())
    assert told is not None and told.state == UNKNOWABLE
    assert running(TRADES, [], Findings()) is None


def test_a_book_is_judged_up_to_where_its_continuity_was_checked() -> None:
    book = ("okx", "S", "orderbook")
    told = running(book, [a_range("1", "9", 9)], Findings(checks=(check("proved", FIRST_US, LAST_US - SECOND_US),)))
    assert told is not None and (told.state, told.value) == (PROVED, 1.0)
    told = running(book, [a_range("1", "9", 9)], Findings())
    assert told is not None and told.state == UNKNOWABLE
