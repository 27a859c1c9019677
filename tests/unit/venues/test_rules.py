from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.venues.faults import CATALOGUE, faults
from app.venues.rules import Rule

NOW_US = 1_790_000_000_000_000


def rule(text: str, number: int = 1, seed: int = 7) -> Rule:
    (one,) = faults(text)
    return Rule(number, one, seed, NOW_US)


@given(
    skip=st.integers(0, 5),
    count=st.integers(0, 5),
    probability=st.floats(0.05, 1),
    chances=st.integers(0, 40),
)
def test_it_strikes_after_what_it_skips_and_no_more_often_than_it_may(
    skip: int, count: int, probability: float, chances: int
) -> None:
    one = rule(f"lose,skip={skip},count={count},probability={probability}")
    struck = [n for n in range(chances) if one.awake(NOW_US) and one.strikes("a")]
    assert all(n >= skip for n in struck)
    assert len(struck) <= (count or chances) and one.struck == len(struck)
    if probability == 1:
        last = min(chances, skip + count) if count else chances
        assert struck == [*range(skip, last)]


@given(after_s=st.floats(0, 100), for_s=st.floats(0, 100), at_s=st.floats(-1, 250))
def test_it_is_awake_in_its_time_alone(after_s: float, for_s: float, at_s: float) -> None:
    one = rule(f"burst,after_s={after_s!r},for_s={for_s!r}")
    at_us = int(at_s * 1e6)
    begin, length = int(after_s * 1e6), int(for_s * 1e6)
    assert one.awake(NOW_US + at_us) is (begin <= at_us < begin + length)


@given(st.lists(st.sampled_from("ab"), max_size=60))
def test_the_draws_of_one_subject_do_not_depend_on_the_others(subjects: list[str]) -> None:
    text = "lose,probability=0.5"
    together, alone, other = rule(text), rule(text), rule(text, number=2)
    drawn = [together.strikes(subject) for subject in subjects if together.awake(NOW_US)]
    of_a = [struck for struck, subject in zip(drawn, subjects, strict=True) if subject == "a"]
    assert of_a == [alone.strikes("a") for _ in of_a]
    assert [other.strikes("a") for _ in range(64)] != [rule(text).strikes("a") for _ in range(1)] * 64


def test_the_seed_and_the_number_decide_the_draws() -> None:
    def course(number: int, seed: int) -> list[bool]:
        one = rule("lose,probability=0.5", number, seed)
        return [one.strikes("x") for _ in range(64)]

    assert course(1, 7) == course(1, 7)
    assert course(1, 7) != course(2, 7) != course(2, 8)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("lose", 1),
        ("lose,count=3", 3),
        ("lose,count=0", 10),
        ("lose,for_s=5", 10),
        ("lose,probability=1", 10),
        ("http", 10),
        ("http,count=2", 2),
        ("cut,after_s=0", 1),
    ],
)
def test_without_a_limit_it_strikes_once_unless_it_lasts(text: str, times: int) -> None:
    one = rule(text)
    assert sum(one.awake(NOW_US) and one.strikes("x") for _ in range(10)) == times


def test_it_fits_what_it_was_limited_to_and_what_is_not_known() -> None:
    one = rule("lose,venue=okx,symbol=btc-usdt,feed=trade,connection=2")
    assert one.fits("okx", "BTC-USDT", "trade", 2) and one.fits("okx", connection=2) and one.fits("okx")
    for wrong in (
        ("bybit", "BTC-USDT", "trade", 2),
        ("okx", "ETH-USDT", "trade", 2),
        ("okx", "BTC-USDT", "orderbook", 2),
        ("okx", "BTC-USDT", "trade", 3),
    ):
        assert not one.fits(*wrong)
    assert rule("lose").fits("upbit", "KRW-BTC", "orderbook", 99)


def test_every_kind_makes_a_rule() -> None:
    for name in CATALOGUE:
        assert rule(f"{name},symbol=x" if name == "refuse-symbol" else name).name == name
