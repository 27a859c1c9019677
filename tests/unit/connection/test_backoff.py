"""The wait before the next attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.connection.backoff import delay_s, told_s

failures = st.integers(1, 10_000)
initial = st.floats(0.01, 10)
longest = st.floats(10, 600)
jitter = st.floats(0, 1, exclude_max=True)


def test_a_venue_may_ask_for_three_days_and_not_for_ever() -> None:
    told = {"7": 7, "0": 0, "259200": 259_200, "259201": 259_200, "9" * 400: 259_200}
    assert {text: told_s(text) for text in told} == told
    no_seconds = ["", "-1", "1.5", "nan", "inf", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT"]
    assert [told_s(text) for text in no_seconds] == [None] * len(no_seconds)


def test_the_wait_doubles_with_each_failure_up_to_the_longest() -> None:
    assert [delay_s(n, 1, 60, 0.5) for n in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_nothing_failed_means_no_wait_whatever_the_jitter() -> None:
    assert [delay_s(n, 5, 60, 0.9) for n in (0, -1)] == [0, 0]


def test_jitter_spreads_the_wait_over_a_quarter_to_either_side() -> None:
    assert [delay_s(3, 1, 60, jitter) for jitter in (0, 0.25, 0.5, 0.75)] == [3.0, 3.5, 4.0, 4.5]


@given(failures, initial, longest, jitter)
def test_the_wait_is_never_longer_than_the_longest_and_a_quarter(
    failures: int, initial: float, longest: float, jitter: float
) -> None:
    assert 0.75 * min(initial, longest) <= delay_s(failures, initial, longest, jitter) <= 1.25 * longest


@given(failures, initial, longest, jitter)
def test_one_failure_more_never_shortens_the_wait(failures: int, initial: float, longest: float, jitter: float) -> None:
    assert delay_s(failures, initial, longest, jitter) <= delay_s(failures + 1, initial, longest, jitter)
