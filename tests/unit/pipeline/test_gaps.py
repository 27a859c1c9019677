"""What is missing and what became of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.pipeline.gaps import SETTLED_US, arrived, closed, overlap, runs_left, size, states, unknowable, words


def gap(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {"epoch": "e", "exchange": "x", "symbol": "s", "feed": "trade", "number": number, "after_us": 10, **changes}


def repair(state: str, found_us: int, number: int = 1, found: int = 0) -> dict[str, Any]:
    return {**gap(number), "state": state, "found_us": found_us, "found": found, "detail": f"at {found_us}"}


def check(kind: str, verdict: str, checked_us: int, start_us: int = 1) -> dict[str, Any]:
    return {
        "exchange": "x", "symbol": "s", "feed": "trade", "kind": kind, "start_us": start_us, "end_us": start_us + 1,
        "verdict": verdict, "checked_us": checked_us, "detail": f"{kind} {checked_us}",
    }  # fmt: skip


def test_the_newest_repair_of_a_gap_stands() -> None:
    told = states([gap(2, after_us=5), gap(1)], [repair("repaired", 30), repair("partly", 20), repair("partly", 40, 3)])
    assert [(one["number"], one["state"], one["found_us"], one["detail"]) for one in told] == [
        (2, "open", None, ""),
        (1, "repaired", 30, "at 30"),
    ]


def test_part_of_a_gap_is_asked_for_until_the_venue_had_time() -> None:
    told = {"state": "partly", "after_us": 0}
    assert not closed({**told, "found_us": SETTLED_US - 1})
    assert closed({**told, "found_us": SETTLED_US})
    assert [closed({"state": state}) for state in ("open", "repaired", "unrepairable")] == [False, True, True]


def test_a_seam_is_unknowable_until_a_later_fetch_proves_it() -> None:
    seams = [check("seam", "unknowable", 1), check("seam", "proved", 1, 5), check("crossed", "unknowable", 1, 6)]
    assert [(one["start_us"], one["asked"], one["why"]) for one in unknowable(seams)] == [(1, False, "seam 1")]
    tried = [*seams, check("refetch", "unknowable", 2)]
    assert [(one["asked"], one["why"]) for one in unknowable(tried)] == [(True, "refetch 2")]
    assert unknowable([*tried, check("refetch", "proved", 3)]) == []
    named = {**seams[0], "detail": f"{'b' * 32} after {'a' * 32}: its ids cannot tell"}
    assert [(one["epoch"], one["why"]) for one in unknowable([named])] == [("b" * 32, "its ids cannot tell")]


@settings(deadline=None)
@given(
    st.integers(0, 30), st.integers(0, 30), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=8)
)  # fmt: skip
def test_what_is_left_is_the_difference_of_sets(first: int, width: int, raw: list[tuple[int, int]]) -> None:
    last, spans = first + width, [(a, a + more) for a, more in raw]
    left = runs_left(first, last, spans)
    ids = set(range(first, last + 1)) - {i for a, b in spans for i in range(a, b + 1)}
    assert [i for a, b in left for i in range(a, b + 1)] == sorted(ids)
    assert size(left) == len(ids)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(left)), "runs are as long as they can be"


def test_runs_are_told_in_words() -> None:
    assert words([(5, 5), (7, 9)]) == "5, 7..9"
    assert words([(n, n) for n in range(10)], most=2) == "0, 1 and 8 more"
    assert overlap((1, 5), (5, 9)) and not overlap((1, 4), (5, 9))


def test_ids_arrived_with_the_epochs_that_fetched_them_and_not_where_one_was_quarantined() -> None:
    told = {"symbol": "s", "feed": "trade", "quarantined": 0, "first_id": "5", "last_id": "9-12"}
    more = {**told, "first_id": "20-21", "last_id": "22"}
    rows = [told, more, {**told, "quarantined": 1}, {**told, "feed": "orderbook"}]
    assert list(arrived(rows)) == [((5, 12), told), ((20, 22), more)]
