"""Signs of life of a connection, second by second."""

from __future__ import annotations

import pytest

from app.connection.life import PING_AFTER_S, PONG_WITHIN_S, Life


@pytest.mark.row("X2")
def test_a_silent_connection_is_asked_once_and_is_gone_when_no_answer_comes() -> None:
    life = Life(100.0)
    assert not life.asks(100.0 + PING_AFTER_S)
    assert life.asks(100.1 + PING_AFTER_S)
    assert not life.asks(100.2 + PING_AFTER_S)
    assert not life.gone(100.1 + PING_AFTER_S + PONG_WITHIN_S)
    assert life.gone(100.2 + PING_AFTER_S + PONG_WITHIN_S)


def test_any_frame_or_pong_answers_the_question() -> None:
    for answer in (Life.frame, Life.pong):
        life = Life(0.0)
        assert life.asks(20.0)
        answer(life, 21.0)
        assert not life.gone(1000.0)
        assert (life.silent_s(30.0), life.asks(30.0), life.asks(40.0)) == (9.0, False, True)


def test_what_never_came_is_none_and_not_nought() -> None:
    life = Life(5.0)
    assert life.silences(9.0) == {"data": None, "frame": None, "pong": None}
    life.frame(7.0)
    life.data_s = 7.0
    assert life.silences(9.0) == {"data": 2.0, "frame": 2.0, "pong": None}


def test_questions_and_answers_are_counted() -> None:
    life = Life(0.0)
    assert [life.asks(at_s) for at_s in (20.0, 21.0)] == [True, False]
    life.pong(22.0)
    life.frame(23.0)
    assert (life.pings, life.pongs) == (1, 1)
