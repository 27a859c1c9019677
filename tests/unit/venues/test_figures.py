from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from app.venues.figures import number, padded, pairs, rfc3339, trimmed


def test_a_padded_number_always_shows_all_its_digits() -> None:
    assert padded(2, 8)(7_674_519) == "76745.19000000"
    assert padded(8, 8)(0) == "0.00000000"
    assert padded(8, 8)(65_000) == "0.00065000"


def test_a_trimmed_number_is_as_short_as_it_goes() -> None:
    assert [trimmed(2)(v) for v in (7_714_050, 7_714_000, 7_714_055, 0)] == ["77140.5", "77140", "77140.55", "0"]


def test_a_number_prints_as_a_float_does() -> None:
    assert [number(8)(v) for v in (28_046_037_885_666, 8_428, 500_000_000)] == ["280460.37885666", "8.428e-05", "5.0"]


@given(st.integers(0, 10**14))
def test_every_way_of_writing_keeps_the_value(value: int) -> None:
    exact = Decimal(value).scaleb(-8)
    assert [Decimal(write(value)) for write in (padded(8, 8), trimmed(8), number(8))] == [exact] * 3


def test_levels_become_the_inside_of_an_array() -> None:
    assert pairs([(150, 2), (100, 30)], trimmed(2), padded(1, 2)) == '["1.5","0.20"],["1","3.00"]'


def test_times_are_utc_with_microseconds() -> None:
    assert rfc3339(1_790_000_000_000_456) == "2026-09-21T14:13:20.000456Z"
