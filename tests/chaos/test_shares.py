"""Stream workers come, go, stop and stand still: the others have their streams soon, in equal shares, and nothing is lost."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from app.wiring import Wiring
from tests.support.crash import CeleryWorker, celery_workers
from tests.support.exchanges import ExchangeProcess
from tests.support.path import archived, compare, connections, finish, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import MARKETS, Rig

FOUR = {name: MARKETS[name] for name in ("binance", "coinbase", "okx", "bybit")}
LEASE_SECS = 3


class Shares:
    """Who has which stream, by the leases."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring, self._names = wiring, list(wiring.streams)

    def by_pid(self) -> dict[int, int]:
        """Process -> number of its streams."""
        return Counter(int(token.split(":")[1]) for token in self._wiring.board.holders(self._names).values())

    def are(self, shares: dict[CeleryWorker, int]) -> bool:
        """Whether these workers, and nobody else, have so many streams, and every one brings data."""
        if self.by_pid() != {worker.pid: share for worker, share in shares.items()}:
            return False
        states = self._wiring.board.states(self._names)
        pids = {worker["process"].split(":")[1]: worker["streams"] for worker in self._wiring.board.workers().values()}
        return (
            {str(worker.pid): share for worker, share in shares.items()} == {pid: len(s) for pid, s in pids.items()}
            and len(states) == len(self._names)
            and all(state["connection"] == "open" and state["events"] > 5 for state in states.values())
        )


def took(condition: Callable[[], bool], what: str, seconds: float) -> float:
    """Seconds until `condition`; it fails after `seconds`."""
    began_s = time.monotonic()
    until(condition, what, seconds)
    return time.monotonic() - began_s


@pytest.mark.exhaustive
@pytest.mark.timeout(180)
def test_a_worker_that_joins_gets_its_half_one_that_stops_gives_it_back_within_seconds_and_no_event_is_lost(
    rig: Rig, exchange_server: Callable[..., ExchangeProcess], record_property: Callable[[str, object], None]
) -> None:
    exchange = exchange_server(rate=10)
    rig.write(FOUR, exchange.venues, buffer={"lease_secs": LEASE_SECS})
    wiring = rig.wiring()
    shares = Shares(wiring)
    schedule = str(rig.directory / "schedule")
    with (
        celery_workers(("supervisor",), "default", rig, "-B", "-s", schedule, threads=2),
        celery_workers(("one",), "streams", rig, threads=8) as first,
    ):
        one = first["one"]
        until(lambda: shares.are({one: 4}), "the first worker has all streams", 60)
        with celery_workers(("two",), "streams", rig, threads=8) as second:
            two = second["two"]
            until(lambda: len(wiring.board.workers()) == 2, "the second worker is on the board", 60)
            record_property("joined_s", took(lambda: shares.are({one: 2, two: 2}), "each has its half", 30))
            one_stops_s = time.monotonic()
            assert one.signal(signal.SIGTERM) == 0, one.log
            stopped_s = time.monotonic() - one_stops_s
            until(lambda: shares.by_pid() == {two.pid: 4}, "the other has all", 5)
            record_property("stopped_s", (stopped_s, time.monotonic() - one_stops_s))
            until(lambda: shares.are({two: 4}), "and all of them bring data")
            exchange.halt()
            assert two.signal(signal.SIGTERM) == 0, two.log
    finish(wiring)
    assert Counter(row["reason"] for row in connections(wiring)) == {"handed_over": 2, "stop": 6}
    texts = {data for rows in archived(wiring).values() for _, data in rows}
    # `maybe`: it was written to a connection that the other side was closing.
    compare(wiring, [line for line in exchange.sent() if not line.get("maybe") or line["data"] in texts])


@pytest.mark.exhaustive
@pytest.mark.timeout(180)
def test_after_redis_came_back_without_its_data_everything_goes_on_where_it_was_without_a_human(
    own_redis: RedisProcess,
    tmp_path: Path,
    exchange_server: Callable[..., ExchangeProcess],
    record_property: Callable[[str, object], None],
) -> None:
    (tmp_path / "rig").mkdir()
    rig = Rig(tmp_path / "rig", own_redis.url)
    exchange = exchange_server(rate=10)
    rig.write(FOUR, exchange.venues, buffer={"lease_secs": LEASE_SECS})
    wiring = rig.wiring()
    shares = Shares(wiring)
    schedule = str(rig.directory / "schedule")
    with (
        celery_workers(("supervisor",), "default", rig, "-B", "-s", schedule, threads=2),
        celery_workers(("one", "two"), "streams", rig, threads=8) as workers,
    ):
        halves = dict.fromkeys(workers.values(), 2)
        until(lambda: shares.are(halves), "each has its half", 60)
        connections = len(wiring.streams)
        until(lambda: exchange.status()["connections"] == connections, "every stream is connected")
        own_redis.kill()
        own_redis.start()
        own_redis.client().delete(f"{rig.prefix}:beat")
        assert wiring.board.last_beat_s() is None

        def back() -> bool:
            return shares.are(halves) and wiring.board.last_beat_s() is not None

        record_property("redis_back_s", took(back, "leases, presence and supervision are back", 30))
        assert exchange.status()["connections"] == connections
        (one, two) = workers.values()
        one.signal(signal.SIGKILL)
        record_property("killed_s", took(lambda: shares.by_pid() == {two.pid: 4}, "who is left has all streams", 20))
