"""The lists in a real Redis: what is counted is what is there, and only what was stored is removed."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.buffer.client import connect
from app.buffer.events import Depth, EventBuffer
from app.codec import BatchCodec, events_in
from app.errors import BufferUnavailable
from tests.support.batches import batch, event
from tests.support.redis_process import RedisProcess

CODEC = BatchCodec()
STREAM = "okx-0-trade"
MANY = (1000, 10**9)


def element(number: int, events: int = 1, *, epoch: str = "0a" * 16) -> bytes:
    return CODEC.encode(batch(number, [event(n) for n in range(1, events + 1)], epoch=epoch))


class Lists(NamedTuple):
    """A buffer under a prefix of its own, and a back door to its keys."""

    buffer: EventBuffer
    back: redis.Redis
    prefix: str

    def listed(self, stream: str = STREAM) -> list[bytes]:
        return self.back.lrange(f"{self.prefix}:buffer:{stream}", 0, -1)  # type: ignore[return-value]

    def counters(self, stream: str = STREAM) -> tuple[int | None, int | None]:
        """Bytes and events as Redis has them."""
        values = [self.back.hget(f"{self.prefix}:buffer-{what}", stream) for what in ("bytes", "events")]
        held_bytes, events = (None if value is None else int(value) for value in values)  # type: ignore[arg-type]
        return held_bytes, events


@pytest.fixture
def lists(redis_server: RedisProcess) -> Callable[..., Lists]:
    def make(max_bytes: int = 10**6) -> Lists:
        prefix = f"test-{uuid.uuid4().hex[:12]}"
        client = connect(redis_server.url, 2)
        return Lists(EventBuffer(client, prefix, max_bytes), redis_server.client(), prefix)

    return make


def test_elements_come_out_in_the_order_they_went_in_and_stay_until_acknowledged(lists: Callable[..., Lists]) -> None:
    buffer = lists().buffer
    elements = [element(n, events=n) for n in (1, 2, 3)]
    assert [buffer.push(STREAM, e) for e in elements] == [1, 3, 6]
    assert [buffer.head(STREAM, *MANY) for _ in range(2)] == [elements, elements]
    assert buffer.acknowledge(STREAM, elements[:2]) == 2
    assert buffer.head(STREAM, *MANY) == elements[2:]


def test_the_head_is_bounded_in_elements_and_bytes_and_never_empty_where_there_is_one(
    lists: Callable[..., Lists],
) -> None:
    buffer = lists().buffer
    elements = [element(n) for n in range(1, 6)]
    size = len(elements[0])
    assert {len(e) for e in elements} == {size}
    for e in elements:
        buffer.push(STREAM, e)
    assert buffer.head(STREAM, 3, 10**9) == elements[:3]
    assert buffer.head(STREAM, 100, 2 * size) == elements[:2]
    assert buffer.head(STREAM, 100, 2 * size - 1) == elements[:1]
    assert buffer.head(STREAM, 100, 0) == elements[:1]
    assert buffer.head("another", *MANY) == []


def test_a_full_list_refuses_and_changes_nothing(lists: Callable[..., Lists]) -> None:
    one, two, three = element(1), element(2), element(3)
    found = lists(max_bytes=len(one) + len(two))
    assert [found.buffer.push(STREAM, e) for e in (one, two, three)] == [1, 2, None]
    assert found.listed() == [one, two]
    assert found.counters() == (len(one) + len(two), 2)
    assert found.buffer.push("another", three) == 1, "each stream has a bound of its own"
    found.buffer.acknowledge(STREAM, [one])
    assert found.buffer.push(STREAM, three) == 2


def test_an_empty_list_takes_an_element_larger_than_its_bound(lists: Callable[..., Lists]) -> None:
    found = lists(max_bytes=10)
    assert found.buffer.push(STREAM, element(1)) == 1
    assert found.buffer.push(STREAM, element(2)) is None
    assert found.listed() == [element(1)]


def test_only_exactly_the_head_is_removed(lists: Callable[..., Lists]) -> None:
    found = lists()
    elements = [element(n) for n in (1, 2, 3, 4)]
    for e in elements:
        found.buffer.push(STREAM, e)
    assert found.buffer.acknowledge(STREAM, [elements[1]]) == 0
    assert found.buffer.acknowledge(STREAM, [elements[0], elements[2], elements[1]]) == 1
    assert found.listed() == elements[1:]
    assert found.counters() == (sum(map(len, elements[1:])), 3)


def test_a_head_of_another_epoch_with_the_same_batch_number_is_not_removed(lists: Callable[..., Lists]) -> None:
    found = lists()
    ours, foreign = element(1), element(1, epoch="0b" * 16)
    found.buffer.push(STREAM, foreign)
    assert found.buffer.acknowledge(STREAM, [ours]) == 0
    assert found.listed() == [foreign]


def test_two_flushers_with_the_same_claim_remove_it_once(lists: Callable[..., Lists]) -> None:
    found = lists()
    elements = [element(n) for n in (1, 2, 3)]
    for e in elements:
        found.buffer.push(STREAM, e)
    claim = found.buffer.head(STREAM, 2, 10**9)
    assert [found.buffer.acknowledge(STREAM, claim) for _ in range(2)] == [2, 0]
    assert found.listed() == elements[2:]


def test_what_was_pushed_twice_stands_there_twice_and_is_removed_twice(lists: Callable[..., Lists]) -> None:
    found = lists()
    assert [found.buffer.push(STREAM, element(1, events=2)) for _ in range(2)] == [2, 4]
    assert found.buffer.acknowledge(STREAM, [element(1, events=2)] * 2) == 2
    assert (found.listed(), found.counters()) == ([], (None, None))


def test_bytes_that_are_no_batch_can_be_pushed_counted_and_acknowledged(lists: Callable[..., Lists]) -> None:
    found = lists()
    garbage = [b"short", b"C\x09" + bytes(60), bytes(100)]
    assert [found.buffer.push(STREAM, e) for e in garbage] == [0, 0, 0]
    assert found.counters() == (sum(map(len, garbage)), 0)
    assert found.buffer.head(STREAM, *MANY) == garbage
    assert found.buffer.acknowledge(STREAM, garbage) == 3
    assert found.counters() == (None, None)


def test_the_depths_are_those_of_every_list_that_holds_something(lists: Callable[..., Lists]) -> None:
    found = lists()
    assert found.buffer.depths() == []
    for number in (1, 2):
        found.buffer.push("b-0-trade", element(number, events=3))
    found.buffer.push("a-0-trade", element(1))
    assert found.buffer.depths() == [
        Depth("a-0-trade", 1, len(element(1)), 1),
        Depth("b-0-trade", 2, len(element(1, events=3)) + len(element(2, events=3)), 6),
    ]
    found.buffer.acknowledge("a-0-trade", [element(1)])
    assert [depth.stream for depth in found.buffer.depths()] == ["b-0-trade"]


def test_prefixes_do_not_meet(lists: Callable[..., Lists]) -> None:
    one, other = lists(), lists()
    one.buffer.push(STREAM, element(1))
    assert (other.buffer.head(STREAM, *MANY), other.buffer.depths()) == ([], [])


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(["s1", "s2"]), st.integers(0, 4)),
        st.tuples(st.just("again"), st.sampled_from(["s1", "s2"]), st.integers(0, 5)),
        st.tuples(st.just("garbage"), st.sampled_from(["s1", "s2"]), st.integers(1, 60)),
        st.tuples(st.just("ack"), st.sampled_from(["s1", "s2"]), st.integers(1, 4)),
        st.tuples(st.just("wrong ack"), st.sampled_from(["s1", "s2"]), st.integers(1, 4)),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_counters_are_what_the_lists_hold_after_anything(
    lists: Callable[..., Lists], todo: list[tuple[str, str, int]]
) -> None:
    found = lists(max_bytes=900)
    model: dict[str, list[bytes]] = {"s1": [], "s2": []}
    pushed: dict[str, list[bytes]] = {"s1": [], "s2": []}
    for at, (kind, stream, amount) in enumerate(todo):
        held = model[stream]
        if kind in ("push", "again", "garbage"):
            new = element(at, events=amount) if kind == "push" else b"?" * amount
            if kind == "again" and pushed[stream]:
                new = pushed[stream][amount % len(pushed[stream])]
            pushed[stream].append(new)
            fits = not held or sum(map(len, held)) + len(new) <= 900
            expected = sum(map(events_in, held)) + events_in(new) if fits else None
            assert found.buffer.push(stream, new) == expected
            held += [new] if fits else []
        elif kind == "ack":
            assert found.buffer.acknowledge(stream, held[:amount]) == len(held[:amount])
            del held[:amount]
        else:
            foreign = element(10_000 + at)
            assert found.buffer.acknowledge(stream, [foreign, *held[:amount]]) == 0
        for name, elements in model.items():
            counted = (sum(map(len, elements)), sum(map(events_in, elements))) if elements else (None, None)
            assert (found.listed(name), found.counters(name)) == (elements, counted)


def test_after_redis_forgot_everything_nothing_wrong_is_removed_and_counting_starts_anew(
    own_redis: RedisProcess,
) -> None:
    buffer = EventBuffer(connect(own_redis.url, 2), "p", 10**6)
    old = [element(1), element(2)]
    for e in old:
        buffer.push(STREAM, e)
    claim = buffer.head(STREAM, *MANY)
    own_redis.client().flushall()
    own_redis.client().script_flush()
    assert buffer.acknowledge(STREAM, claim) == 0
    assert buffer.depths() == []
    assert buffer.push(STREAM, element(3)) == 1
    assert buffer.acknowledge(STREAM, claim) == 0
    assert buffer.depths() == [Depth(STREAM, 1, len(element(3)), 1)]


def test_what_a_restored_redis_brings_back_is_claimed_again_and_nothing_else_is_lost(own_redis: RedisProcess) -> None:
    buffer = EventBuffer(connect(own_redis.url, 2), "p", 10**6)
    back = own_redis.client()
    for n in (1, 2):
        buffer.push(STREAM, element(n))
    keys = [f"p:buffer:{STREAM}", "p:buffer-bytes", "p:buffer-events"]
    saved = {key: back.dump(key) for key in keys}
    buffer.acknowledge(STREAM, buffer.head(STREAM, *MANY))
    buffer.push(STREAM, element(3))
    claim = buffer.head(STREAM, *MANY)
    for key, dump in saved.items():
        back.restore(key, 0, dump, replace=True)  # type: ignore[arg-type]
    assert buffer.acknowledge(STREAM, claim) == 0, "what stands at the head now is not what was claimed"
    assert buffer.head(STREAM, *MANY) == [element(1), element(2)]
    assert buffer.depths() == [Depth(STREAM, 2, len(element(1)) + len(element(2)), 2)]


def test_a_redis_that_was_killed_and_came_back_still_holds_what_reached_its_disk(own_redis: RedisProcess) -> None:
    buffer = EventBuffer(connect(own_redis.url, 2), "p", 10**6)
    own_redis.client().config_set("appendfsync", "always")
    buffer.push(STREAM, element(1, events=3))
    own_redis.kill()
    with pytest.raises(BufferUnavailable):
        buffer.push(STREAM, element(2))
    own_redis.start()
    assert buffer.head(STREAM, *MANY) == [element(1, events=3)]
    assert buffer.depths() == [Depth(STREAM, 1, len(element(1, events=3)), 3)]


def test_a_redis_that_does_not_answer_is_unavailable_in_every_call_and_answers_again_when_it_can(
    own_redis: RedisProcess,
) -> None:
    buffer = EventBuffer(connect(own_redis.url, 0.2), "p", 10**6)
    buffer.push(STREAM, element(1))
    own_redis.freeze()
    calls: list[Callable[[], object]] = [
        lambda: buffer.push(STREAM, element(2)),
        lambda: buffer.head(STREAM, *MANY),
        lambda: buffer.acknowledge(STREAM, [element(1)]),
        buffer.depths,
    ]
    for call in calls:
        with pytest.raises(BufferUnavailable, match="Redis: TimeoutError"):
            call()
    own_redis.thaw()
    # The push and the acknowledgement may both have happened: that is what replays are for.
    left = buffer.head(STREAM, *MANY)
    assert left in ([element(1)], [element(1), element(2)], [element(2)], [])
    assert [(depth.batches, depth.bytes) for depth in buffer.depths()] == (
        [(len(left), sum(map(len, left)))] if left else []
    )


def test_a_redis_out_of_memory_is_unavailable_and_nothing_moved(own_redis: RedisProcess) -> None:
    buffer = EventBuffer(connect(own_redis.url, 2), "p", 10**6)
    buffer.push(STREAM, element(1))
    own_redis.client().config_set("maxmemory", 1)
    with pytest.raises(BufferUnavailable, match=r"OOM|OutOfMemory"):
        buffer.push(STREAM, element(2))
    assert buffer.acknowledge(STREAM, [element(1)]) == 1, "what is stored can still be let go"
    own_redis.client().config_set("maxmemory", 0)
    assert buffer.depths() == []


def test_what_waits_is_seen_whole_while_others_take_and_add(lists: Callable[..., Lists]) -> None:
    buffer = lists().buffer
    elements = [element(number) for number in range(1, 251)]
    for one in elements:
        buffer.push(STREAM, one)
    seen = []
    for number, one in enumerate(buffer.waiting(STREAM)):
        seen.append(one)
        if number == 120:
            buffer.acknowledge(STREAM, elements[:30])
            buffer.push(STREAM, element(251))
    assert set(seen) == set(elements[30:])
    assert seen[:120] == elements[:-121:-1], "the newest first"
    assert list(buffer.waiting("okx-1-trade")) == []
