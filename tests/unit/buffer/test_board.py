"""The notice board in a real Redis."""

from __future__ import annotations

import time

import pytest
import redis

from app.buffer.board import Board
from app.buffer.client import connect
from app.buffer.lease import Lease
from app.errors import BufferUnavailable
from app.launch.redis_server import free_port
from tests.support.rig import Rig


@pytest.fixture
def client(rig: Rig) -> redis.Redis:
    return connect(rig.redis_url, 2)


@pytest.fixture
def board(rig: Rig, client: redis.Redis) -> Board:
    return Board(client, rig.prefix)


def test_a_state_is_read_as_it_was_put_up_and_the_last_one_counts(board: Board) -> None:
    state = {
        "stream": "a",
        "connection": "open",
        "feeds": [{"symbol": "KRW-BTC", "age_s": 0.25}],
        "why": "é",
        "n": None,
    }
    board.publish("a", {"old": True}, 60)
    board.publish("a", state, 60)
    board.publish("b", {"n": 2}, 60)
    assert board.states(["a", "b", "never"]) == {"a": state, "b": {"n": 2}}
    assert board.states([]) == {}


def test_who_publishes_no_more_disappears(board: Board) -> None:
    board.publish("a", {"n": 1}, 0.05)
    board.publish("b", {"n": 2}, 60)
    until_s = time.monotonic() + 10
    while "a" in board.states(["a", "b"]):
        assert time.monotonic() < until_s
    assert board.states(["a", "b"]) == {"b": {"n": 2}}


def test_a_station_says_what_keeps_it_from_its_work_until_all_is_well(board: Board) -> None:
    notice = {"level": "degraded", "detail": "the disk is full", "since_us": 1}
    assert board.troubles() == {}
    board.trouble("flush", {"level": "warning"}, 60)
    board.trouble("flush", notice, 60)
    board.trouble("archive", notice, 0.001)
    until_s = time.monotonic() + 10
    while "archive" in board.troubles():
        assert time.monotonic() < until_s
    assert board.troubles() == {"flush": notice}
    board.all_well("flush")
    assert board.troubles() == {}


def test_those_with_a_lease_are_the_streams_somebody_collects(board: Board, client: redis.Redis, rig: Rig) -> None:
    lease = Lease(client, rig.prefix, "stream:a", "token", 60)
    lease.acquire()
    Lease(client, rig.prefix, "flush", "token", 60).acquire()
    assert board.leased(["a", "b", "flush"]) == {"a"}
    assert board.leased([]) == set()
    lease.release()
    assert board.leased(["a", "b"]) == set()


def test_a_stream_is_dispatched_once_in_its_time(board: Board) -> None:
    assert [board.dispatch("a", 60), board.dispatch("a", 60), board.dispatch("b", 60)] == [True, False, True]
    assert board.dispatch("c", 0.05)
    until_s = time.monotonic() + 10
    while not board.dispatch("c", 60):
        assert time.monotonic() < until_s


def test_what_was_sent_to_a_worker_that_is_gone_is_sent_again_by_one_supervisor(board: Board) -> None:
    assert board.dispatch("a", 60, "one@host")
    assert board.dispatched(["a", "b"]) == {"a": "one@host"}
    assert not board.dispatch("a", 60, "two@host")
    assert not board.dispatch("a", 60, "two@host", instead_of="three@host")
    assert board.dispatch("a", 60, "two@host", instead_of="one@host")
    assert not board.dispatch("a", 60, "two@host", instead_of="one@host")
    assert board.dispatched(["a"]) == {"a": "two@host"}
    board.arrived("a")
    assert board.dispatched(["a"]) == {}
    assert board.dispatch("a", 60)
    assert board.dispatched(["a"]) == {"a": ""}


def test_a_handover_is_asked_of_one_holder_who_hears_of_it_when_it_publishes(board: Board) -> None:
    assert board.publish("a", {"n": 1}, 60) is None
    assert board.ask_handover("a", "host:1:aa", 60)
    assert not board.ask_handover("a", "host:2:bb", 60)
    assert board.handovers(["a", "b"]) == {"a": "host:1:aa"}
    assert (board.publish("a", {"n": 2}, 60), board.publish("b", {"n": 2}, 60)) == ("host:1:aa", None)
    assert board.states(["a"]) == {"a": {"n": 2}}
    assert board.ask_handover("b", "host:1:aa", 0.05)
    until_s = time.monotonic() + 10
    while board.publish("b", {}, 60):
        assert time.monotonic() < until_s


def test_workers_are_on_the_board_until_they_leave_or_are_silent_and_leave_no_name_behind(
    board: Board, client: redis.Redis, rig: Rig
) -> None:
    assert board.workers() == {}
    board.join("two@host", {"streams": ["a"]}, 60)
    board.join("one@host", {"streams": []}, 60)
    board.join("one@host", {"streams": ["b"], "why": "é"}, 60)
    assert list(board.workers().items()) == [
        ("one@host", {"streams": ["b"], "why": "é"}),
        ("two@host", {"streams": ["a"]}),
    ]
    board.leave("one@host")
    assert board.workers().keys() == {"two@host"}
    board.join("two@host", {}, 0.05)
    until_s = time.monotonic() + 10
    while board.workers():
        assert time.monotonic() < until_s
    assert client.exists(f"{rig.prefix}:workers") == 0


def test_the_holders_are_known_by_their_tokens(board: Board, client: redis.Redis, rig: Rig) -> None:
    Lease(client, rig.prefix, "stream:a", "host:1:aa", 60).acquire()
    assert board.holders(["a", "b"]) == {"a": "host:1:aa"}


def test_the_last_beat_is_remembered_for_an_hour(board: Board, client: redis.Redis, rig: Rig) -> None:
    assert board.last_beat_s() is None
    board.beat(1_790_000_000)
    board.beat(1_790_000_005)
    assert board.last_beat_s() == 1_790_000_005
    assert 3500 < client.ttl(f"{rig.prefix}:beat") <= 3600  # type: ignore[operator]


def test_every_call_says_so_when_redis_is_away() -> None:
    board = Board(connect(f"redis://127.0.0.1:{free_port()}/0", 0.2), "p")
    for call in (
        lambda: board.publish("a", {}, 1),
        lambda: board.states(["a"]),
        lambda: board.leased(["a"]),
        lambda: board.dispatch("a", 1),
        lambda: board.dispatch("a", 1, "w", instead_of="v"),
        lambda: board.dispatched(["a"]),
        lambda: board.arrived("a"),
        lambda: board.ask_handover("a", "token", 1),
        lambda: board.handovers(["a"]),
        lambda: board.join("w", {}, 1),
        lambda: board.leave("w"),
        lambda: board.workers(),
        lambda: board.beat(1),
        lambda: board.last_beat_s(),
    ):
        with pytest.raises(BufferUnavailable, match="Redis: ConnectionError"):
            call()


def test_the_last_run_of_each_station_without_trouble_is_remembered(board: Board) -> None:
    assert board.successes() == {}
    for station, now_s in (("flush", 100), ("archive", 90), ("flush", 105)):
        board.succeeded(station, now_s)
    assert board.successes() == {"flush": 105, "archive": 90}


def test_how_complete_the_newest_object_of_a_feed_is_until_nobody_can_know(board: Board) -> None:
    board.judged("okx", "BTC-USDT", "trade", 0.9999999999999999)
    board.judged("okx", "BTC-USDT", "orderbook", 1.0)
    assert board.completeness() == {
        ("okx", "BTC-USDT", "trade"): 0.9999999999999999,
        ("okx", "BTC-USDT", "orderbook"): 1.0,
    }
    board.judged("okx", "BTC-USDT", "trade", None)
    assert board.completeness() == {("okx", "BTC-USDT", "orderbook"): 1.0}
