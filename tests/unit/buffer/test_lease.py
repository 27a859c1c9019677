"""Leases in a real Redis: one holder at a time, by token."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from app.buffer.client import connect
from app.buffer.lease import Holding, Lease
from app.errors import BufferUnavailable
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig


@pytest.fixture
def lease(rig: Rig) -> Callable[..., Lease]:
    client = connect(rig.redis_url, 2)

    def make(token: str, name: str = "stream:x", ttl_s: float = 60) -> Lease:
        return Lease(client, rig.prefix, name, token, ttl_s)

    return make


@pytest.fixture
def back(rig: Rig) -> redis.Redis:
    return redis.Redis.from_url(rig.redis_url)


def test_one_at_a_time_holds_a_lease_until_it_is_given_back(lease: Callable[..., Lease]) -> None:
    one, other = lease("one"), lease("other")
    assert one.holder() is None
    assert (one.acquire(), other.acquire()) == (True, False)
    assert (one.holder(), other.holder()) == ("one", "one")
    other.release()
    assert other.acquire() is False, "only the holder gives it back"
    one.release()
    assert other.acquire() is True
    assert one.holder() == "other"


def test_a_holder_cannot_acquire_twice_but_renew(lease: Callable[..., Lease]) -> None:
    one = lease("one")
    assert (one.acquire(), one.acquire(), one.renew()) == (True, False, Holding.OURS)


def test_leases_of_other_names_do_not_meet(lease: Callable[..., Lease]) -> None:
    assert lease("one", "stream:x").acquire()
    assert lease("other", "stream:y").acquire()


def test_renewing_prolongs_it_by_its_whole_time(lease: Callable[..., Lease], rig: Rig, back: redis.Redis) -> None:
    one, key = lease("one", ttl_s=60), f"{rig.prefix}:lease:stream:x"
    one.acquire()
    assert 50_000 < back.pttl(key) <= 60_000  # type: ignore[operator]
    back.pexpire(key, 1_000)
    assert one.renew() is Holding.OURS
    assert 50_000 < back.pttl(key) <= 60_000  # type: ignore[operator]


def test_renewing_says_whether_it_ran_out_or_was_taken(
    lease: Callable[..., Lease], rig: Rig, back: redis.Redis
) -> None:
    one, other = lease("one"), lease("other")
    assert one.renew() is Holding.EXPIRED
    one.acquire()
    back.delete(f"{rig.prefix}:lease:stream:x")
    assert one.renew() is Holding.EXPIRED
    assert one.holder() is None, "renewing what ran out takes nothing"
    other.acquire()
    assert one.renew() is Holding.TAKEN
    one.release()
    assert other.renew() is Holding.OURS


def test_it_runs_out_by_itself(lease: Callable[..., Lease]) -> None:
    one, other = lease("one", ttl_s=0.05), lease("other")
    one.acquire()
    until_s = time.monotonic() + 10
    while not other.acquire():
        assert time.monotonic() < until_s
    assert one.renew() is Holding.TAKEN


def test_a_redis_that_is_away_is_no_lost_lease(own_redis: RedisProcess) -> None:
    one = Lease(connect(own_redis.url, 0.2), "p", "stream:x", "one", 60)
    one.acquire()
    own_redis.freeze()
    for call in (one.renew, one.acquire, one.release, one.holder):
        with pytest.raises(BufferUnavailable):
            call()
    own_redis.thaw()
    assert one.holder() in ("one", None)  # the release may have come through after all
