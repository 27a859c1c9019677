"""Counts of many processes become one sum, whatever Redis did in between."""

from __future__ import annotations

import pytest
import redis

from app.buffer.client import connect
from app.buffer.tally import Reporter, Series, Tally
from app.errors import BufferUnavailable
from tests.support.rig import Rig

SERIES: Series = ("collector_messages_received_total", (("exchange", "okx"), ("symbol", "BTC-USDT")))
OTHER: Series = ("collector_messages_dropped_total", ())


class Unanswered(Tally):
    """Adds, and then does not say so, as often as told."""

    silent = 0

    def add(self, *arguments: object) -> None:
        super().add(*arguments)  # type: ignore[arg-type]
        if self.silent:
            self.silent -= 1
            raise BufferUnavailable("the answer was lost")


@pytest.fixture
def client(rig: Rig) -> redis.Redis:
    return connect(rig.redis_url, 2)


@pytest.fixture
def tally(rig: Rig, client: redis.Redis) -> Unanswered:
    return Unanswered(client, rig.prefix)


def test_the_counts_of_two_processes_are_added_up(tally: Tally) -> None:
    Reporter(tally, "a", lambda: {SERIES: 3.0, OTHER: 0.0}).report()
    Reporter(tally, "b", lambda: {SERIES: 4.0, OTHER: 0.5}).report()
    assert tally.sums() == {SERIES: 7.0, OTHER: 0.5}


def test_only_what_came_since_is_added(tally: Tally) -> None:
    counts = {SERIES: 3.0}
    reporter = Reporter(tally, "a", lambda: dict(counts))
    reporter.report()
    reporter.report()
    counts[SERIES] = 5.0
    reporter.report()
    assert tally.sums() == {SERIES: 5.0}


def test_a_call_whose_answer_was_lost_is_added_once_and_what_came_meanwhile_too(tally: Unanswered) -> None:
    counts = {SERIES: 3.0}
    reporter = Reporter(tally, "a", lambda: dict(counts))
    tally.silent = 2
    for _ in range(2):
        with pytest.raises(BufferUnavailable):
            reporter.report()
        counts[SERIES] += 1
    reporter.report()
    assert tally.sums() == {SERIES: 5.0}


def test_a_redis_that_lost_everything_begins_anew(tally: Tally, rig: Rig, client: redis.Redis) -> None:
    counts = {SERIES: 3.0}
    reporter = Reporter(tally, "a", lambda: dict(counts))
    reporter.report()
    client.delete(f"{rig.prefix}:tally", f"{rig.prefix}:tallied:a")
    counts[SERIES] = 4.0
    reporter.report()
    assert tally.sums() == {SERIES: 1.0}


def test_one_series_can_be_asked_for(tally: Tally) -> None:
    assert tally.sum(SERIES) == 0
    Reporter(tally, "a", lambda: {SERIES: 3.0, OTHER: 0.5}).report()
    assert (tally.sum(SERIES), tally.sum(OTHER)) == (3.0, 0.5)
