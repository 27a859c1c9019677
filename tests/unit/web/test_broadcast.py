"""One computation for all viewers, only while there is one, and the latest for who is slow."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from app.web.broadcast import Broadcast, Seats, followed


def never() -> bool:
    return False


async def event(viewer: Any) -> tuple[str, Any]:
    """The next event of a viewer."""
    while True:
        text = (await asyncio.wait_for(anext(viewer), 20)).decode()
        if text.startswith("event: "):
            name, data = text.removeprefix("event: ").rstrip("\n").split("\ndata: ")
            return name, msgspec.json.decode(data)


def test_all_viewers_are_told_the_same_and_it_is_computed_once() -> None:
    counted = iter(range(1000))
    broadcast = Broadcast(lambda: ("n", next(counted)), 0.01)

    async def look() -> list[Any]:
        viewers = [broadcast.watch(never) for _ in range(5)]
        seen = [await event(viewer) for viewer in viewers]
        assert broadcast.viewers == 5
        for viewer in viewers:
            await viewer.aclose()  # type: ignore[attr-defined]
        return seen

    seen = asyncio.run(look())
    assert seen[0] == ("n", 0)
    assert broadcast.viewers == 0
    assert next(counted) < 20, "five viewers did not make it be computed five times as often"


def test_nothing_is_computed_when_the_last_viewer_is_gone_and_again_when_one_comes() -> None:
    calls: list[int] = []

    def tell() -> tuple[str, int]:
        calls.append(len(calls))
        return "n", len(calls)

    broadcast = Broadcast(tell, 0.0)

    async def look() -> None:
        for _ in range(2):
            viewer = broadcast.watch(never)
            await event(viewer)
            pump = broadcast._pump
            assert pump is not None
            await viewer.aclose()  # type: ignore[attr-defined]
            await asyncio.wait_for(pump, 20)
            made = len(calls)
            await asyncio.sleep(0)
            assert len(calls) == made

    asyncio.run(look())


def test_who_is_slow_misses_documents_and_is_told_the_latest() -> None:
    made = threading.Event()
    counted = iter(range(1000))

    def tell() -> tuple[str, int]:
        number = next(counted)
        if number >= 10:
            made.set()
        return "n", number

    broadcast = Broadcast(tell, 0.0)

    async def look() -> None:
        viewer = broadcast.watch(never)
        assert (await event(viewer)) == ("n", 0)
        while not made.is_set():
            await asyncio.sleep(0.01)
        _, number = await event(viewer)
        assert number >= 9
        await viewer.aclose()  # type: ignore[attr-defined]

    asyncio.run(look())


def test_viewers_are_sent_away_when_the_process_ends_and_told_what_went_wrong() -> None:
    broadcast = Broadcast(lambda: ("n", 1), 30)
    over = threading.Event()

    async def leave() -> None:
        viewer = broadcast.watch(over.is_set)
        await event(viewer)
        over.set()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(viewer), 20)

    asyncio.run(leave())

    def broken() -> tuple[str, int]:
        raise RuntimeError("a bug")

    async def fail() -> None:
        viewer = Broadcast(broken, 0).watch(never)
        with pytest.raises(RuntimeError, match="a bug"):
            await event(viewer)

    asyncio.run(fail())


def test_seats_are_bounded_and_come_back() -> None:
    seats = Seats(2)
    assert [seats.take() for _ in range(3)] == [True, True, False]
    seats.leave()
    assert [seats.take() for _ in range(2)] == [True, False]


def asked(broadcast: Broadcast, seats: Seats) -> tuple[Any, dict[str, Any]]:
    """The answer to a viewer, and the scope of its question."""
    app = Starlette()
    app.state.over = never
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "app": app, "asgi": {"spec_version": "2.3"}}
    return followed(Request(scope), broadcast, seats), scope


async def silence() -> Any:
    """A viewer of whom nothing is heard any more."""
    await asyncio.Event().wait()


def test_a_stream_ends_in_order_after_its_time_and_its_seat_is_free_although_nobody_said_goodbye() -> None:
    seats, sent = Seats(1), list[Any]()

    async def look() -> None:
        answer, scope = asked(Broadcast(lambda: ("n", 1), 0.01, longest_s=0.2), seats)
        assert asked(Broadcast(lambda: ("n", 1), 0.01), seats)[0].status_code == 503

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(answer(scope, silence, send), 60)

    asyncio.run(look())
    assert b"event: n" in b"".join(message.get("body", b"") for message in sent)
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert seats.taken == 0


def test_a_viewer_who_takes_nothing_any_more_is_cut_off_and_its_seat_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.broadcast.CUT_S", 0.1)
    seats = Seats(1)
    broadcast = Broadcast(lambda: ("n", 1), 0.01, longest_s=0.1)

    async def look() -> None:
        answer, scope = asked(broadcast, seats)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()  # as on a connection whose buffers are full

        await asyncio.wait_for(answer(scope, silence, send), 60)
        assert seats.taken == 0
        pump = broadcast._pump
        if pump is not None:
            await asyncio.wait_for(pump, 60)

    asyncio.run(look())
    assert broadcast.viewers == 0


def test_what_goes_wrong_in_time_is_not_taken_for_the_end_of_it() -> None:
    def late() -> tuple[str, int]:
        raise TimeoutError("of something else")

    async def look() -> None:
        answer, scope = asked(Broadcast(late, 0.0), Seats())

        async def send(message: Any) -> None:
            pass

        with pytest.raises(TimeoutError, match="of something else"):
            await asyncio.wait_for(answer(scope, silence, send), 60)

    asyncio.run(look())
