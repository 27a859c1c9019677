"""1.0 only where proved, a number only where what is missing was counted, None where nobody can know."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.objects.completeness import completeness
from app.objects.manifest import EpochSpan, IdSpan, Manifest
from tests.support.manifests import FIRST_US, LAST_US, OPENED_US, SEALED_US, check, described, gap, loss, repair

PROVED = (check("proved"),)
TIMES = st.integers(OPENED_US - 10, SEALED_US + 10)


def test_trades_whose_ids_are_all_there_are_complete() -> None:
    assert completeness(described()) == (1.0, ())


def test_a_hole_in_the_ids_is_counted() -> None:
    holed = described(ids=IdSpan(first=1, last=100, holes=((11, 20), (50, 50))))
    assert completeness(holed) == (89 / 100, ("11 ids are missing, the first of them 11",))


def test_a_repaired_gap_is_no_hole_any_more_and_one_repaired_in_part_is_one_for_the_rest() -> None:
    holed = described(ids=IdSpan(first=1, last=100, holes=((11, 20),)), gaps=(gap(3, 11, 20),))
    assert completeness(holed).value == 0.9
    assert completeness(replace(holed, repairs=(repair(3, "partly", 4),))).value == 90 / 96
    assert completeness(replace(holed, repairs=(repair(3, "unrepairable", 0),))).value == 0.9
    assert completeness(replace(holed, repairs=(repair(3, "partly", 4, 1), repair(3, "repaired", 10, 2)))).value == 1.0


def test_a_gap_before_the_first_trade_counts_though_no_id_shows_it() -> None:
    assert completeness(described(ids=IdSpan(first=50, last=149), gaps=(gap(1, 40, 49),))).value == 100 / 110
    assert completeness(described(ids=IdSpan(first=50, last=149), gaps=(gap(1, 10, 19),))).value == 100 / 110


def test_what_was_given_up_is_among_the_ids_that_are_missing() -> None:
    holed = described(ids=IdSpan(first=1, last=110, holes=((11, 20),)))
    assert completeness(replace(holed, losses=(loss(10),))).value == 100 / 110
    assert completeness(replace(holed, losses=(loss(15),))).value == 100 / 115
    assert completeness(described(losses=(loss(25),))).value == 100 / 125


def test_a_loss_of_another_hour_says_nothing_of_this_one() -> None:
    assert completeness(described(losses=(loss(None, OPENED_US - 20, OPENED_US - 10),))).value == 1.0


@pytest.mark.parametrize(("verdict", "value"), [("proved", 1.0), ("broken", 1.0), ("unknowable", None)])
def test_a_seam_that_cannot_be_judged_leaves_no_number_and_one_that_is_broken_has_its_gap(
    verdict: str, value: float | None
) -> None:
    assert completeness(described(checks=(check(verdict, FIRST_US - 9, FIRST_US, "seam"),))).value == value
    assert completeness(described(checks=(check(verdict, FIRST_US - 9, FIRST_US - 1, "seam"),))).value == 1.0


def test_a_seam_of_which_the_venue_told_all_trades_afterwards_is_judged() -> None:
    seam, fetched = (check(verdict, kind=kind) for verdict, kind in (("unknowable", "seam"), ("proved", "refetch")))
    assert completeness(described(checks=(seam, fetched))).value == 1.0
    assert completeness(described(checks=(seam, replace(fetched, end_us=LAST_US - 1)))).value is None
    assert completeness(described(checks=(seam, replace(fetched, verdict="unknowable")))).value is None


def test_what_a_dead_process_may_have_lost_is_told_by_the_ids_that_follow_and_unknown_where_none_do() -> None:
    inside, at_the_end = (loss(None, start_us, SEALED_US, "unclean_end") for start_us in (LAST_US - 1, LAST_US))
    assert completeness(described(losses=(inside,))).value == 1.0
    holed = described(ids=IdSpan(first=1, last=100, holes=((11, 20),)), losses=(inside,))
    assert completeness(holed).value == 0.9
    assert completeness(described(losses=(at_the_end,))).value is None
    ended = EpochSpan(epoch=at_the_end.epoch, reason="stop")
    assert completeness(described(losses=(at_the_end,), epochs=(ended,))).value == 1.0
    assert completeness(described(losses=(at_the_end,), epochs=(replace(ended, reason="unclean_end"),))).value is None


@pytest.mark.parametrize("exchange", ["upbit", "bybit"])
def test_trades_whose_ids_skip_are_never_a_number(exchange: str) -> None:
    value, reasons = completeness(described(exchange, ids=None))
    assert (value, reasons) == (None, ("the ids of these trades do not tell what is missing",))


def test_a_book_is_complete_where_its_continuity_is_proved_from_end_to_end() -> None:
    book = described("okx", "orderbook")
    middle = FIRST_US + 1_000
    assert completeness(replace(book, checks=PROVED)) == (1.0, ())
    halves = check("proved", FIRST_US - 5, middle), check("proved", middle, LAST_US)
    assert completeness(replace(book, checks=halves)).value == 1.0
    torn = check("proved", FIRST_US, middle), check("proved", middle + 1, LAST_US)
    for checks in ((), torn, halves[:1], (check("proved", kind="crossed"),)):
        value, reasons = completeness(replace(book, checks=checks))
        assert (value, reasons) == (None, ("its continuity is not proved from the first row to the last",))


@pytest.mark.parametrize(
    "other", [check("unknowable"), check("broken"), check("broken", kind="crossed"), check("broken", kind="rest")]
)
def test_a_verdict_against_a_book_leaves_no_number(other: object) -> None:
    assert completeness(described("okx", "orderbook", checks=(*PROVED, other))).value is None
    assert completeness(described("okx", "orderbook", checks=(*PROVED, check("unknowable", kind="rest")))).value == 1.0


def test_the_size_of_a_hole_in_a_book_is_known_where_every_frame_has_the_next_number() -> None:
    """Bybit counts frames; OKX ids jump, and an id of Binance is no frame."""
    hole = check("broken", FIRST_US, FIRST_US + 1)
    for exchange, value in (("bybit", 100 / 104), ("okx", None), ("binance", None)):
        book = described(
            exchange, "orderbook", gaps=(gap(9, 5, 8),), checks=(hole, check("proved", FIRST_US + 1, LAST_US))
        )
        assert completeness(book).value == value


def test_what_a_book_gave_up_is_known_by_its_number() -> None:
    hole, rest = check("broken", FIRST_US, FIRST_US + 2), check("proved", FIRST_US + 2, LAST_US)
    book = described("okx", "orderbook", checks=(hole, rest), losses=(loss(25, FIRST_US, FIRST_US + 1),))
    assert completeness(book).value == 0.8


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Anything a manifest may say, true or not."""
    exchange = draw(st.sampled_from(["binance", "coinbase", "upbit", "okx", "bybit"]))
    spans = st.tuples(TIMES, TIMES).map(sorted)
    firsts = st.integers(1, 120)
    gaps = draw(st.lists(st.tuples(firsts, st.integers(0, 9)), max_size=3))
    repairs = st.builds(
        repair, st.integers(0, 2), st.sampled_from(["repaired", "partly", "unrepairable"]), st.integers(0, 9)
    )
    losses = st.builds(lambda count, span: loss(count, *span), st.none() | st.integers(1, 50), spans)
    kinds, verdicts = (
        st.sampled_from(["continuity", "crossed", "rest", "seam"]),
        st.sampled_from(["proved", "broken", "unknowable"]),
    )
    checks = st.builds(lambda verdict, span, kind: check(verdict, *span, kind), verdicts, spans, kinds)
    holes = draw(st.lists(st.integers(2, 99), max_size=4, unique=True).map(sorted))
    told = describe_ids(holes) if draw(st.booleans()) else None
    return described(
        exchange,
        draw(st.sampled_from(["trade", "orderbook"])),
        ids=told,
        gaps=tuple(gap(n, first, first + more) for n, (first, more) in enumerate(gaps)),
        repairs=tuple(draw(st.lists(repairs, max_size=3))),
        losses=tuple(draw(st.lists(losses, max_size=2))),
        checks=tuple([*draw(st.lists(checks, max_size=3)), *(PROVED if draw(st.booleans()) else ())]),
        quarantined=draw(st.integers(0, 1)),
    )


def describe_ids(missing: list[int]) -> IdSpan:
    return IdSpan(first=1, last=100, holes=tuple((n, n) for n in missing))


@given(manifests())
def test_never_whole_with_an_open_gap_a_loss_or_anything_unknown_and_never_a_number_where_nobody_can_know(
    m: Manifest,
) -> None:
    value, reasons = completeness(m)
    open_gap = any(
        max((r for r in m.repairs if r.number == g.number), key=lambda r: r.found_us, default=repair(0, "", 0)).state
        != "repaired"
        for g in m.gaps
    )
    lost = [one for one in m.losses if one.start_us <= SEALED_US and one.end_us >= OPENED_US]
    of_book = (
        [c for c in m.checks if c.start_us <= LAST_US and c.end_us >= FIRST_US] if m.data_type == "orderbook" else []
    )
    assert value is None or 0 < value <= 1
    assert (value == 1.0) == (not reasons)
    if open_gap or lost or any(c.verdict == "broken" for c in of_book):
        assert value != 1.0
    if any(one.count is None for one in lost) or (m.data_type == "trade" and m.ids is None):
        assert value is None
    if any(c.verdict == "unknowable" and c.kind == "continuity" for c in of_book):
        assert value is None
    seams = [c for c in m.checks if c.kind == "seam" and c.start_us <= LAST_US and c.end_us >= FIRST_US]
    if m.data_type == "trade" and any(c.verdict == "unknowable" for c in seams):
        assert value is None


@given(st.integers(1, 10**18), st.integers(1, 10**3))
def test_a_number_below_one_stays_below_it_however_little_is_missing(have: int, missing: int) -> None:
    ids = IdSpan(first=1, last=have + missing, holes=((1, missing),))
    value = completeness(described(ids=ids)).value
    assert value is not None and value < 1.0
    assert abs(Fraction(value) - Fraction(have, have + missing)) < Fraction(1, 10**15)
