"""What was found out later is united with the manifest, and only what speaks of it."""

from __future__ import annotations

from msgspec.structs import replace

from app.objects.manifest import IdSpan
from app.pipeline.certificate import Findings, united
from tests.support.manifests import FIRST_US, LAST_US, SEALED_US, check, described, gap, loss, repair


def test_checks_that_were_made_later_prove_a_book_that_its_manifest_could_not() -> None:
    half = check("proved", FIRST_US, FIRST_US + 5)
    book = described("bybit", "orderbook", checks=(half,))
    later = Findings(
        checks=(half, check("proved", FIRST_US + 5, LAST_US + 9), check("broken", SEALED_US, SEALED_US + 9))
    )
    now = united(book, later)
    assert (book.completeness, now.completeness, now.completeness_reasons) == (None, 1.0, ())
    assert now.checks == (half, later.checks[1])


def test_a_repair_that_came_later_closes_its_gap_and_no_other() -> None:
    holed = described(ids=IdSpan(first=1, last=120, holes=((11, 20), (31, 40))), gaps=(gap(3, 11, 20), gap(4, 31, 40)))
    now = united(holed, Findings(repairs=(repair(3, "repaired", 10), repair(7, "repaired", 10))))
    assert now.completeness == 100 / 110
    assert [(one.number, one.repair, one.found) for one in now.gaps] == [(3, "repaired", 10), (4, None, 0)]
    other = replace(repair(3, "repaired", 10), epoch="ef" * 16)
    assert united(holed, Findings(repairs=(other,))).completeness == 100 / 120


def test_a_loss_that_was_declared_later_counts_against_its_hour_only() -> None:
    whole = described()
    assert united(whole, Findings()).completeness == 1.0
    assert united(whole, Findings(losses=(loss(None, LAST_US, SEALED_US + 99),))).completeness is None
    assert united(whole, Findings(losses=(loss(None, SEALED_US + 1, SEALED_US + 99),))).completeness == 1.0


def test_a_gap_that_was_recorded_later_counts_where_it_names_a_connection_of_the_hour() -> None:
    whole = described()
    assert united(whole, Findings(gaps=(gap(3, 200, 209, at_us=LAST_US - 1),))).completeness == 100 / 110
    assert united(whole, Findings(gaps=(gap(3, 200, 209, at_us=SEALED_US),))).completeness == 1.0
    assert united(whole, Findings(gaps=(replace(gap(3, 200, 209), epoch="ef" * 16),))).completeness == 1.0
