"""The catalogue of drills has the rows of docs/reliability.md, and each that is drilled is struck once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from app.drill import plan
from app.drill.catalogue import ALL, ARCHIVE, ROWS
from app.drill.run import listed, unknown
from app.launch.rehearsal import MARKETS

RELIABILITY = Path(__file__).parents[3] / "docs" / "reliability.md"


def test_the_catalogue_has_the_rows_of_the_page_on_reliability_in_its_order() -> None:
    text = RELIABILITY.read_text(encoding="utf-8")
    assert [row.id for row in ROWS] == re.findall(r"(?m)^\| ([A-Z]\d+) \|", text)


def test_every_row_that_is_drilled_is_struck_once_and_no_other() -> None:
    steps = [*plan.ARCHIVE, *(step for round_ in (*plan.FIRST, *plan.SECOND) for step in round_.steps)]
    assert Counter(row for step in steps for row in step.rows) == Counter(row.id for row in ROWS if row.drilled)


def test_rows_of_one_venue_or_of_the_archive_alone_are_the_ones_that_share_a_round() -> None:
    scopes = {row.id: row.scope for row in ROWS}
    for round_ in (*plan.FIRST, *plan.SECOND):
        found = [{scopes[row] for step in lane for row in step.rows} for lane in round_.lanes]
        if len(found) > 1:
            assert all(len(scope) == 1 and scope <= set(MARKETS) for scope in found), found
            assert len(set.union(*found)) == len(found), "a venue is struck in one lane"
        else:
            assert found == [{ALL}]
    assert {scopes[row] for step in plan.ARCHIVE for row in step.rows} == {ARCHIVE}


def test_a_round_is_cut_down_to_the_chosen_rows() -> None:
    venues = plan.FIRST[0]
    assert [step.rows for step in plan.chosen(venues, {"X9", "X2", "K1"}).steps] == [("X9",), ("X2",)]
    assert plan.chosen(venues, {"K1"}).lanes == ()


def test_the_list_says_of_every_row_whether_it_is_drilled() -> None:
    lines = listed()
    assert [line.split()[0] for line in lines] == [row.id for row in ROWS]
    assert [line for line in lines if "test only" in line] == [
        f"{row.id:<4} test only  {row.promise} ({row.test_only})" for row in ROWS if not row.drilled
    ]


def test_rows_that_cannot_be_drilled_are_told_with_the_reason() -> None:
    assert unknown(["K1", "Z9", "T2"]) == [
        "Z9 is no row; `collector drill --list` names them", "T2 is test only: it needs a midnight",
    ]  # fmt: skip
