"""Seams: what can be told of the moment between two connections, and what cannot."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model import Check, Gap
from app.pipeline.seams import Judged, judge, last_id, marks, presences, seam, sides

A, B, C = "0a" * 16, "0b" * 16, "0c" * 16
NOW_US = 9_000


def row(
    epoch: str, first: int, last: int, ids: tuple[Any, Any], us: tuple[Any, Any], feed: str = "trade"
) -> dict[str, Any]:
    return {
        "epoch": epoch, "symbol": "btcusdt", "feed": feed, "first": first, "last": last, "first_id": ids[0],
        "last_id": ids[1], "first_us": us[0], "last_us": us[1],
    }  # fmt: skip


def epochs(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"overlaps": [], "ended_us": None, **changes.get(name[1], {})} for name in (A, B, C)}


def judged(
    *rows: dict[str, Any],
    first: tuple[int, int] | None = None,
    gaps: tuple[dict[str, Any], ...] = (),
    after: str = B,
    **changes: Any,
) -> Judged | None:
    found = presences(rows)
    (begins,) = (one for key, one in found.items() if key[0] == after)
    return judge(seam(begins, found.values(), epochs(**changes)), first, gaps, NOW_US)


def check(verdict: str, words: str, start_us: int = 20, end_us: int = 30, feed: str = "trade") -> Check:
    return Check("btcusdt", feed, "seam", start_us, end_us, verdict, NOW_US, f"{B} after {A}: {words}")


BEFORE = row(A, 1, 10, ("1", "10"), (10, 20))


def test_a_feed_that_was_never_stored_before_has_no_seam() -> None:
    assert judged(row(B, 1, 5, ("11", "15"), (30, 40)), first=(11, 11)) is None


def test_ids_that_go_on_prove_that_nothing_came_between() -> None:
    after = row(B, 1, 5, ("11", "15"), (30, 40))
    assert judged(BEFORE, after, first=(11, 11)) == Judged(check("proved", "ids go on: 10, then 11"))


def test_an_aggregate_is_judged_by_the_first_id_it_stands_for() -> None:
    after = row(B, 1, 5, ("14", "15"), (30, 40))
    assert judged(BEFORE, after, first=(11, 14)) == Judged(check("proved", "ids go on: 10, then 11"))
    found = judged(BEFORE, after, first=(12, 14))
    assert found is not None and found.gap == Gap("btcusdt", "trade", 1, "11", "11", 1, 20, 30, "restart")


def test_a_hole_becomes_a_gap_of_the_epoch_that_shows_it() -> None:
    after = row(B, 1, 5, ("14", "18"), (30, 40))
    assert judged(BEFORE, after, first=(14, 14)) == Judged(
        check("broken", "ids 11..13 are missing"), Gap("btcusdt", "trade", 1, "11", "13", 3, 20, 30, "restart")
    )


def test_a_hole_that_a_gap_on_record_names_is_not_named_twice() -> None:
    after = row(B, 1, 5, ("14", "18"), (30, 40))
    known = {"epoch": B, "symbol": "btcusdt", "feed": "trade", "number": 1, "from_id": "11", "to_id": "13"}
    assert judged(BEFORE, after, first=(14, 14), gaps=(known,)) == Judged(
        check("broken", "ids 11..13 are missing, as the gap on record says")
    )
    elsewhere = {**known, "epoch": A}
    found = judged(BEFORE, after, first=(14, 14), gaps=(elsewhere,))
    assert found is not None and found.gap is not None


def test_of_a_hole_that_is_named_in_part_the_rest_is_named() -> None:
    after = row(B, 1, 5, ("14", "18"), (30, 40))
    known = {"epoch": B, "symbol": "btcusdt", "feed": "trade", "number": 1, "from_id": "13", "to_id": "13"}
    found = judged(BEFORE, after, first=(14, 14), gaps=(known,))
    assert found is not None and found.gap == Gap("btcusdt", "trade", 0, "11", "12", 2, 20, 30, "restart")


def test_a_repeated_trade_or_a_snapshot_of_older_ones_hides_no_hole() -> None:
    snapshot = row(B, 1, 60, ("0", "59"), (30, 40))
    assert judged(row(A, 1, 1, ("10", "10"), (20, 20)), snapshot, first=(0, 0)) == Judged(
        check("proved", "ids go on: 10, then 0")
    )


def test_ids_that_start_over_tell_nothing() -> None:
    after = row(B, 1, 5, ("3", "4"), (30, 40))
    found = judged(row(A, 1, 9, ("100", "110"), (10, 20)), after, first=(3, 3))
    assert found == Judged(check("unknowable", "ids start over: 110, then 3"))


def test_the_highest_id_counts_whichever_connection_brought_it() -> None:
    rows = (
        row(A, 1, 10, ("1", "20"), (5, 12)),
        row(C, 1, 3, ("8", "9"), (10, 20)),
        row(B, 1, 5, ("21", "25"), (30, 40)),
    )
    found = judged(*rows, first=(21, 21))
    assert found is not None and found.check.verdict == "proved"


@pytest.mark.parametrize(
    ("feed", "words"), [("trade", "its ids cannot tell"), ("orderbook", "a new connection begins a new series")]
)
def test_without_counted_ids_the_time_between_two_connections_is_unknowable(feed: str, words: str) -> None:
    rows = (row(A, 1, 10, ("x", "y"), (10, 20), feed), row(B, 1, 5, ("z", "w"), (30, 40), feed))
    assert judged(*rows) == Judged(check("unknowable", words, feed=feed))


def test_the_same_trade_on_both_sides_leaves_nothing_between() -> None:
    rows = (row(A, 1, 10, ("x", "y"), (10, 20)), row(B, 1, 5, ("y", "w"), (30, 40)))
    assert judged(*rows) == Judged(check("proved", "the same trade on both sides"))
    books = (row(A, 1, 10, ("x", "y"), (10, 20), "orderbook"), row(B, 1, 5, ("y", "w"), (30, 40), "orderbook"))
    found = judged(*books)
    assert found is not None and found.check.verdict == "unknowable", "deltas may have come and gone"


def test_connections_that_overlapped_prove_it_by_their_times_or_by_their_word() -> None:
    rows = (row(A, 1, 10, ("x", "y"), (10, 35), "orderbook"), row(B, 1, 5, ("z", "w"), (30, 40), "orderbook"))
    assert judged(*rows) == Judged(check("proved", "overlapping connections", 35, 35, "orderbook"))
    quiet = (row(A, 1, 10, ("x", "y"), (10, 20)), row(B, 1, 5, ("z", "w"), (30, 40)))
    for ended_us, verdict in ((None, "proved"), (30, "proved"), (29, "unknowable")):
        found = judged(*quiet, a={"ended_us": ended_us}, b={"overlaps": [A]})
        assert found is not None and found.check.verdict == verdict


def test_ranges_of_one_epoch_are_one_presence_and_quarantined_ends_are_passed_over() -> None:
    found = presences(
        [
            row(A, 1, 2, (None, "2"), (None, 12)),
            row(A, 5, 6, ("5", "6"), (15, 16)),
            row(A, 9, 9, (None, None), (None, None)),
        ]
    )[A, "btcusdt", "trade"]
    assert found == (A, "btcusdt", "trade", 1, "2", 12, "6", 16, ("2", "5", "6"))
    v1 = {"epoch": B, "symbol": "s", "feed": "trade", "first": 1, "last": 2}
    assert presences([v1]) == {}


def test_a_check_names_its_epochs_and_marks_its_seam() -> None:
    told = {"detail": check("proved", "x").detail, "symbol": "btcusdt", "feed": "trade", "kind": "seam"}
    assert sides(told["detail"]) == (A, B)
    assert marks([told, {**told, "kind": "crossed"}]) == {(B, "btcusdt", "trade")}
    with pytest.raises(ValueError, match="not the detail"):
        sides("nothing")
    assert (last_id("17"), last_id("15-17")) == (17, 17)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12, unique=True), st.sets(st.integers(1, 60), max_size=20))
def test_over_any_cuts_the_gaps_of_the_seams_are_exactly_the_ids_that_never_came(
    cuts: list[int], lost: set[int]
) -> None:
    """Ids 1..60 over connections cut at `cuts`; the first of each lost from its beginning on, as a restart loses them."""
    ends = sorted({*cuts, 60})
    runs, start = [], 1
    for end in ends:
        ids = [i for i in range(start, end + 1)]
        while ids and ids[0] in lost and start > 1:
            ids.pop(0)
        runs.append(ids)
        start = end + 1
    carried = [ids for ids in runs if ids]
    rows = [
        {**row(f"{n:032x}", 1, len(ids), (str(ids[0]), str(ids[-1])), (ids[0] * 10, ids[-1] * 10))}
        for n, ids in enumerate(carried)
    ]
    known = presences(rows)
    missing: set[int] = set()
    for n, ids in enumerate(carried):
        after = known[f"{n:032x}", "btcusdt", "trade"]
        told = {key[0]: {"overlaps": [], "ended_us": None} for key in known}
        found = judge(seam(after, known.values(), told), (ids[0], ids[0]), (), NOW_US)
        if found is not None and found.gap is not None:
            missing |= set(range(int(found.gap.from_id), int(found.gap.to_id) + 1))
    stored = {i for ids in carried for i in ids}
    assert missing == set(range(min(stored), max(stored) + 1)) - stored
