"""A question that may hang keeps nobody waiting."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from app.web.look import Look


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Asked:
    """Answers with what it is given, when it is given."""

    def __init__(self) -> None:
        self.answers: SimpleQueue[object] = SimpleQueue()
        self.times = 0

    def __call__(self) -> object:
        self.times += 1
        answer = self.answers.get(timeout=10)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_an_answer_is_good_for_its_time(clock: Clock, asked: Asked) -> None:
    look = Look("look", asked, (), monotonic_s=clock, keep_s=5)
    asked.answers.put("one")
    assert look.answer(5) == "one"
    clock.now_s += 4.9
    assert (look.answer(5), asked.times) == ("one", 1)
    clock.now_s += 0.2
    asked.answers.put("two")
    assert (look.answer(5), asked.times) == ("two", 2)


@pytest.mark.parametrize(("keep_s", "again_s"), [(5.0, 50.0), (80.0, 80.0), (0.0, 0.1)])
def test_an_answer_that_took_long_is_good_for_longer_where_answers_are_kept(
    keep_s: float, again_s: float, clock: Clock
) -> None:
    times = []

    def ask() -> int:
        times.append(clock.now_s)
        clock.now_s += 1
        return len(times)

    look = Look("look", ask, (), monotonic_s=clock, keep_s=keep_s)
    assert look.answer(5) == 1
    clock.now_s = times[0] + again_s - 0.1
    assert look.answer(5) == (1 if keep_s else 2)
    clock.now_s = times[-1] + again_s + 2
    assert look.answer(5) == (2 if keep_s else 3)


def test_who_waits_for_a_question_that_hangs_is_told_the_old_answer_and_asks_no_second_one(
    clock: Clock, asked: Asked
) -> None:
    look = Look("look", asked, (), monotonic_s=clock, stale_s=60)
    assert (look.answer(0.01), asked.times) == (None, 1)
    asked.answers.put("one")
    assert look.answer(5) == "one"
    clock.now_s += 59
    assert look.answer(0.01) == "one"
    assert look.answer(0.01) == "one"
    assert asked.times == 2
    clock.now_s += 2
    assert look.answer(0.01) is None
    asked.answers.put("two")
    assert (look.answer(5), asked.times) == ("two", 2)


def test_a_fault_that_is_known_is_no_answer_and_another_is_raised(clock: Clock, asked: Asked) -> None:
    look = Look("look", asked, (OSError,), monotonic_s=clock)
    asked.answers.put(OSError("gone"))
    assert look.answer(5) is None
    asked.answers.put(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        look.answer(5)
    asked.answers.put("one")
    assert look.answer(5) == "one"


def test_its_thread_does_not_keep_a_process_from_ending(clock: Clock, asked: Asked) -> None:
    Look("hangs for a test", asked, (), monotonic_s=clock).begin()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "hangs for a test"]
    assert thread.daemon
    asked.answers.put("done")
    thread.join(5)
