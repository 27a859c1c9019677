"""One computation for all viewers, only while there is one, and the latest for who is slow."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from app.web.broadcast import Broadcast, Seats


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
