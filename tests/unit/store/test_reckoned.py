"""Ranges laid beside the rows that could be read: every number is in a range or declared lost, and nowhere twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.store.reckoned import CAUSE, Row, Seen, settle

EPOCH, MARKET = "e" * 32, {"exchange": "okx", "symbol": "BTC-USDT", "feed": "trade"}
KEY = ("okx", "BTC-USDT", "trade", EPOCH)
OPENED_US, CLOSED_US = 1_000, 9_000
#: What became of a number: stored, duplicate, quarantined; or the start of another range after numbers of nobody's.
OUTCOMES = st.lists(st.sampled_from("ssssdq|"), max_size=40)


def _ranges(outcomes: list[str]) -> tuple[list[Row], list[int]]:
    """Ranges of these outcomes, and the numbers that were stored."""
    ranges: list[Row] = []
    stored: list[int] = []
    number, fresh = 0, True
    for outcome in outcomes:
        number += 1
        if outcome == "|":
            fresh, number = True, number + 2
            continue
        if fresh:
            ranges.append({"epoch": EPOCH, **MARKET, "first": number, "last": number, "stored": 0, "duplicates": 0,
                           "conflicts": 0, "quarantined": 0, "first_us": None, "last_us": None})  # fmt: skip
        fresh = False
        ranges[-1]["last"] = number
        ranges[-1][{"s": "stored", "d": "duplicates", "q": "quarantined"}[outcome]] += 1
        stored += [number] if outcome == "s" else []
    return ranges, stored


def _seen(stored: list[int], lost: set[int]) -> dict[Any, Seen]:
    """What a reader saw who could not read the rows of `lost`."""
    seen = Seen()
    for number in stored:
        if number in lost:
            seen.interrupted = True
        else:
            seen.add(OPENED_US + number)
    return {KEY: seen} if seen.rows else {}


def _numbers(rows: list[Row]) -> list[int]:
    return [n for row in rows for n in range(row["first"], row["last"] + 1)]


@given(OUTCOMES, st.data())
def test_every_number_is_in_a_range_or_lost_and_the_ranges_are_true_of_the_rows(outcomes: list[str], data: Any) -> None:
    ranges, stored = _ranges(outcomes)
    lost = data.draw(st.sets(st.sampled_from(stored))) if stored else set()
    kept, losses = settle(_seen(stored, lost), ranges, [], [], True, OPENED_US, CLOSED_US)
    declared = [n for loss in losses.get(("okx", EPOCH), ()) for n in range(loss.first, loss.last + 1)]
    assert sorted(_numbers(kept) + declared) == _numbers(ranges)
    assert len(declared) == len(lost)
    assert sum(row["stored"] for row in kept) == len(stored) - len(lost)
    for row in kept:
        assert row["last"] - row["first"] + 1 == row["stored"] + row["duplicates"] + row["quarantined"]
        assert min(row["stored"], row["duplicates"], row["quarantined"]) >= 0
    for loss in losses.get(("okx", EPOCH), ()):
        assert (loss.cause, loss.count) == (CAUSE, loss.last - loss.first + 1)
        assert loss.start_us >= OPENED_US and loss.end_us <= CLOSED_US


@given(st.lists(st.sampled_from("ss|"), min_size=1, max_size=30), st.data())
def test_rows_that_are_missing_in_a_row_are_named_by_their_numbers(outcomes: list[str], data: Any) -> None:
    ranges, stored = _ranges(outcomes)
    first = data.draw(st.integers(0, len(stored)))
    lost = set(stored[first : data.draw(st.integers(first, len(stored)))])
    kept, losses = settle(_seen(stored, lost), ranges, [], [], True, OPENED_US, CLOSED_US)
    declared = {n for loss in losses.get(("okx", EPOCH), ()) for n in range(loss.first, loss.last + 1)}
    assert declared == lost
    assert _numbers(kept) == sorted(set(_numbers(ranges)) - lost)


def test_the_time_of_a_loss_is_that_between_its_neighbours() -> None:
    ranges, stored = _ranges(list("ssssss"))
    _, losses = settle(_seen(stored, {3, 4}), ranges, [], [], True, OPENED_US, CLOSED_US)
    (loss,) = losses["okx", EPOCH]
    assert (loss.first, loss.last, loss.start_us, loss.end_us) == (3, 4, OPENED_US + 2, OPENED_US + 5)


def test_rows_whose_ranges_are_gone_take_the_numbers_that_no_other_file_has() -> None:
    seen = {KEY: Seen(rows=5)}
    before = {"epoch": EPOCH, **MARKET, "first": 1, "last": 10, "later": False}
    after = {"epoch": EPOCH, **MARKET, "first": 21, "last": 30, "later": True}
    kept, losses = settle(seen, [], [], [before, after], False, OPENED_US, CLOSED_US)
    assert [(row["first"], row["last"], row["stored"]) for row in kept] == [(11, 15, 5)]
    assert [(x.first, x.last, x.count) for x in losses["okx", EPOCH]] == [(16, 20, 5)]
    kept, losses = settle(seen, [], [], [before], False, OPENED_US, CLOSED_US)
    assert [(row["first"], row["last"], row["stored"]) for row in kept] == [(11, 15, 5)]
    assert [(x.first, x.last, x.count) for x in losses["okx", EPOCH]] == [(16, 15, None)]
