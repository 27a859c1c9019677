"""What a stream worker says of itself, on the board of a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.buffer.board import Board
from app.buffer.client import connect
from app.clock import monotonic_s
from app.launch.redis_server import free_port
from app.pipeline.presence import FAILING_S, Presence
from tests.support.path import until
from tests.support.rig import Rig

JOINED_US = 1_790_000_000_000_000


class Kept:
    """A presence, and the thread that keeps it on the board as `one@host`."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.stop = threading.Event()
        self.late_s = 0.0
        self.presence = Presence(self.stop, monotonic_s=lambda: monotonic_s() + self.late_s, wall_us=lambda: JOINED_US)
        #: What stood on the board at each call of supervision.
        self.nudges: list[dict[str, Any] | None] = []
        self.thread = threading.Thread(target=self._keep, daemon=True)

    def _keep(self) -> None:
        self.presence.keep(self.board, "one@host", "host:1", threads=3, ttl_s=60, nudge=self._nudge)

    def _nudge(self) -> None:
        self.nudges.append(self.told())

    def told(self) -> dict[str, Any] | None:
        return self.board.workers().get("one@host")

    def says(self, **facts: Any) -> Callable[[], bool]:
        return lambda: (self.told() or {}).items() >= facts.items()

    def end(self) -> None:
        self.stop.set()
        self.presence.woken.set()


@pytest.fixture
def kept(rig: Rig) -> Iterator[Kept]:
    made = Kept(Board(connect(rig.redis_url, 2), rig.prefix))
    yield made
    made.end()
    if made.thread.ident is not None:
        made.thread.join(10)


def test_what_it_runs_is_on_the_board_at_once_and_supervision_hears_of_its_coming_and_of_each_end(kept: Kept) -> None:
    kept.thread.start()
    until(lambda: len(kept.nudges) == 1, "supervision is called")
    told = kept.nudges[0]
    assert told is not None and told.pop("up_s") < 30
    assert told == {"process": "host:1", "streams": [], "threads": 3, "since_us": JOINED_US, "failing": False}
    with kept.presence.running("b") as first:
        assert first
        with kept.presence.running("a"):
            until(kept.says(streams=["a", "b"]), "both")
        until(kept.says(streams=["b"]), "one has ended")
    until(kept.says(streams=[]), "the other too")
    until(lambda: kept.nudges[-1] is not None and kept.nudges[-1]["streams"] == [], "supervision is called after that")
    assert 2 <= len(kept.nudges) <= 3


def test_a_second_message_for_a_stream_that_runs_here_starts_nothing_and_ends_nothing(kept: Kept) -> None:
    kept.thread.start()
    with kept.presence.running("a") as first:
        with kept.presence.running("a") as second:
            assert (first, second) == (True, False)
        with kept.presence.running("b"):
            until(kept.says(streams=["a", "b"]), "the first one goes on")
    with kept.presence.running("a") as again:
        assert again


def test_who_is_told_to_stop_leaves_the_board_before_its_streams_end_and_calls_supervision_after_them(
    kept: Kept,
) -> None:
    kept.thread.start()
    with kept.presence.running("a"):
        until(kept.says(streams=["a"]), "on the board")
        before = len(kept.nudges)
        kept.end()
        until(lambda: kept.told() is None, "off the board")
        assert kept.thread.is_alive() and len(kept.nudges) == before
    kept.thread.join(10)
    assert not kept.thread.is_alive()
    assert kept.nudges[before:] == [None]


def test_a_stream_that_fails_is_told_for_five_minutes(kept: Kept) -> None:
    with pytest.raises(OSError, match="read-only"), kept.presence.running("a"):
        raise OSError("read-only file system")
    kept.thread.start()
    until(kept.says(failing=True, streams=[]), "it is told")
    kept.late_s = FAILING_S
    kept.presence.woken.set()
    until(kept.says(failing=False), "and forgotten")


def test_it_comes_back_by_itself_after_redis_has_lost_everything(kept: Kept, rig: Rig) -> None:
    kept.thread.start()
    until(kept.told, "on the board")
    connect(rig.redis_url, 2).delete(f"{rig.prefix}:workers", f"{rig.prefix}:worker:one@host")
    assert kept.told() is None
    kept.presence.woken.set()  # as its time would
    until(kept.told, "on the board again")


def test_without_redis_it_goes_on_and_ends_when_it_is_told_to() -> None:
    kept = Kept(Board(connect(f"redis://127.0.0.1:{free_port()}/0", 0.2), "p"))
    kept._nudge = lambda: kept.nudges.append(None)  # type: ignore[method-assign]
    kept.thread.start()
    until(lambda: kept.nudges, "it does not wait for Redis")
    kept.end()
    kept.thread.join(10)
    assert not kept.thread.is_alive()
