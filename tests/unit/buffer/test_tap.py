"""Who listens is told what is pushed, as it is pushed; and who does not, changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from app.buffer.events import EventBuffer
from app.buffer.tap import Tap, channel
from app.codec import BatchCodec
from app.errors import BufferUnavailable
from tests.support.batches import STREAM, batch, event
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

OTHER = "okx-0-orderbook.trade"


def elements(count: int) -> list[bytes]:
    codec = BatchCodec()
    return [codec.encode(batch(number, [event(number)])) for number in range(1, count + 1)]


def test_a_listener_is_told_each_element_in_order_and_of_its_streams_alone(rig: Rig) -> None:
    wiring = rig.wiring()
    first, second, third, fourth = elements(4)
    wiring.buffer.push(STREAM, first)
    with Tap(wiring.redis, rig.prefix, [STREAM]) as tap:
        for stream, element in ((STREAM, second), (OTHER, third), (STREAM, fourth)):
            wiring.buffer.push(stream, element)
        assert [tap.next(5), tap.next(5)] == [second, fourth], "what was pushed before, or elsewhere, is not told"
        assert tap.next(0.05) is None
    assert wiring.buffer.head(STREAM, 10, 1 << 20) == [first, second, fourth], "and everything is in the list"


def test_one_tap_listens_to_several_streams(rig: Rig) -> None:
    wiring = rig.wiring()
    first, second = elements(2)
    with Tap(wiring.redis, rig.prefix, [STREAM, OTHER]) as tap:
        wiring.buffer.push(OTHER, first)
        wiring.buffer.push(STREAM, second)
        assert [tap.next(5), tap.next(5)] == [first, second]


def test_what_a_full_list_refuses_is_not_told(rig: Rig) -> None:
    wiring = rig.wiring()
    first, second = elements(2)
    buffer = EventBuffer(wiring.redis, rig.prefix, len(first) + 1)
    with Tap(wiring.redis, rig.prefix, [STREAM]) as tap:
        assert buffer.push(STREAM, first) == 1
        assert buffer.push(STREAM, second) is None
        assert [tap.next(5), tap.next(0.05)] == [first, None]


def test_nobody_listens_after_a_tap_is_closed(rig: Rig) -> None:
    wiring = rig.wiring()
    name = channel(rig.prefix, STREAM)
    with Tap(wiring.redis, rig.prefix, [STREAM]):
        assert wiring.redis.pubsub_numsub(name) == [(name.encode(), 1)]
    assert wiring.redis.pubsub_numsub(name) == [(name.encode(), 0)]


def test_a_user_who_may_not_publish_pushes_all_the_same(own_redis: RedisProcess, rig: Rig) -> None:
    admin = own_redis.client()
    admin.acl_setuser("pusher", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"], reset=True)
    rig.redis_url = own_redis.url.replace("redis://", "redis://pusher:secret@")
    rig.write({"okx": ["BTC-USDT"]})
    buffer = rig.wiring().buffer
    first, second = elements(2)
    assert [buffer.push(STREAM, first), buffer.push(STREAM, second)] == [1, 2]
    assert buffer.head(STREAM, 10, 1 << 20) == [first, second]
    assert [(d.batches, d.events, d.bytes) for d in buffer.depths()] == [(2, 2, len(first) + len(second))]
    with pytest.raises(BufferUnavailable, match="NoPermission"), Tap(restricted(rig), rig.prefix, [STREAM]):
        pass


def restricted(rig: Rig) -> Any:
    """A client of the user of the rig."""
    return rig.wiring().redis


def test_a_redis_that_is_gone_is_said(own_redis: RedisProcess, rig: Rig) -> None:
    rig.redis_url = own_redis.url
    rig.write({"okx": ["BTC-USDT"]})
    client = rig.wiring().redis
    with Tap(client, rig.prefix, [STREAM]) as tap:
        own_redis.kill()
        with pytest.raises(BufferUnavailable):
            tap.next(5)
    with pytest.raises(BufferUnavailable), Tap(client, rig.prefix, [STREAM]):
        pass
