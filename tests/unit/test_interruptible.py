"""A call that cannot be interrupted: its answer, its error, and what becomes of both when nobody waits any more."""

from __future__ import annotations

import threading

import pytest

from app.errors import Interrupted
from app.interruptible import interruptible


def test_what_the_call_returns_or_raises_is_handed_on() -> None:
    assert interruptible(lambda: 7, lambda: False, "seven") == 7
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0, lambda: False, "nothing")


def test_a_timeout_of_the_call_itself_is_its_own_error() -> None:
    def call() -> None:
        raise TimeoutError("the call's")

    with pytest.raises(TimeoutError, match="the call's"):
        interruptible(call, lambda: False, "slow")


def test_a_call_that_is_given_up_goes_on_elsewhere_and_what_it_still_returns_is_discarded() -> None:
    go, discarded, threads = threading.Event(), threading.Event(), []

    def call() -> str:
        threads.append(threading.current_thread())
        go.wait()
        return "late"

    late: list[str] = []

    def discard(result: str) -> None:
        late.append(result)
        discarded.set()

    with pytest.raises(Interrupted, match="handshake okx was given up"):
        interruptible(call, lambda: True, "handshake okx", discard)
    (thread,) = threads
    assert (thread.name, thread.daemon, late) == ("handshake okx", True, [])
    go.set()
    assert discarded.wait(10)
    assert late == ["late"]


def test_an_error_that_comes_late_ends_its_thread_quietly() -> None:
    go, threads = threading.Event(), []

    def call() -> None:
        threads.append(threading.current_thread())
        go.wait()
        raise OSError("late")

    with pytest.raises(Interrupted):
        interruptible(call, lambda: True, "late")
    go.set()
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_an_answer_that_is_there_counts_even_if_it_is_time_to_end() -> None:
    assert interruptible(lambda: 7, lambda: True, "seven") == 7
