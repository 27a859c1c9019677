"""A transfer that crawls is given up; one that pauses, or is slow and steady enough, is not."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.objects.pace import SLOWEST_BYTES_PER_S, WINDOW_S, Pace, PacedFile, TooSlow


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(rate=st.floats(1.05, 100), step_s=st.floats(0.001, WINDOW_S))
def test_a_transfer_above_the_slowest_rate_is_never_given_up(rate: float, step_s: float) -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(200):
        clock.now_s += step_s
        pace.moved(int(rate * SLOWEST_BYTES_PER_S * step_s) + 1)


@given(rate=st.floats(0, 0.95), step_s=st.floats(0.1, 3 * WINDOW_S), fast_bytes=st.integers(0, 10**9))
def test_a_transfer_below_it_is_given_up_within_two_windows_however_fast_it_was(
    rate: float, step_s: float, fast_bytes: int
) -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.moved(fast_bytes)
    began_s = clock.now_s
    with pytest.raises(TooSlow, match="given up below 8192 bytes/s"):
        while True:
            clock.now_s += step_s
            pace.moved(int(rate * SLOWEST_BYTES_PER_S * step_s))
    assert clock.now_s - began_s <= 2 * (WINDOW_S + step_s)


def test_a_pause_shorter_than_the_window_costs_nothing() -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now_s += WINDOW_S - 1
    pace.moved(0)
    pace.moved(SLOWEST_BYTES_PER_S * 31)
    clock.now_s += 2
    pace.moved(0)


def test_a_paced_file_counts_what_was_read_once_more_is_asked_for() -> None:
    clock = Clock()
    file = PacedFile(io.BytesIO(bytes(100)), Pace(clock))
    assert (len(file.read(60)), file.tell()) == (60, 60)
    clock.now_s += WINDOW_S
    with pytest.raises(TooSlow, match="60 bytes in 30 s"):
        file.read()


def test_what_is_sent_again_begins_at_its_beginning() -> None:
    file = PacedFile(io.BytesIO(b"0123456789"), Pace(Clock()))
    assert (file.read(4), file.seek(0), file.read(), file.read()) == (b"0123", 0, b"0123456789", b"")
    assert file.seek(0, 2) == 10
