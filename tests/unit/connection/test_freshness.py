"""A feed is judged by its own rhythm, which one outage does not spoil."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.connection.freshness import Rhythm


def beaten(timeout_s: float, *at_s: float) -> Rhythm:
    rhythm = Rhythm(timeout_s)
    for second in at_s:
        rhythm.beat(second)
    return rhythm


def test_before_its_second_event_a_feed_has_only_its_timeout() -> None:
    rhythm = beaten(30, 5)
    assert (rhythm.interval_s, rhythm.stale_after_s(), rhythm.quiet_after_s()) == (None, 30, 2)
    assert not rhythm.may_restart()


def test_a_fast_feed_is_stale_after_its_timeout_and_a_slow_one_after_twenty_intervals() -> None:
    assert beaten(30, *(n / 10 for n in range(100))).stale_after_s() == 30
    slow = beaten(30, *range(0, 6000, 60))
    assert slow.interval_s is not None
    assert 50 < slow.interval_s <= 60
    assert slow.stale_after_s() == 20 * slow.interval_s
    assert slow.quiet_after_s() == 5 * slow.interval_s


@given(st.floats(1, 60), st.floats(0.01, 30), st.floats(0, 1e6))
def test_an_outage_of_any_length_counts_at_most_as_long_as_it_takes_to_be_called_stale(
    timeout_s: float, interval_s: float, outage_s: float
) -> None:
    rhythm = beaten(timeout_s, *(n * interval_s for n in range(50)))
    before_s, stale_s = rhythm.interval_s or 0.0, rhythm.stale_after_s()
    rhythm.beat((rhythm.last_s or 0.0) + outage_s)
    assert (rhythm.interval_s or 0.0) <= before_s + stale_s / 16 + 1e-9


def test_one_silence_is_worth_one_new_connection() -> None:
    rhythm = beaten(30, 0, 1, 2)
    assert rhythm.may_restart()
    rhythm.restarted = True
    assert not rhythm.may_restart()
    rhythm.beat(100)
    assert rhythm.may_restart()
