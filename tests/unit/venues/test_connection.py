import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.protocol import State

import app.venues.connection
from app.venues.connection import Connection
from app.venues.dialect import Close, Event, Frame, Join, Leave, say
from app.venues.okx import Okx
from app.venues.sent import Sent


class Protocol:
    state = State.OPEN


class Transport:
    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True
        self.protocol.state = State.CLOSED


class Socket:
    """A socket that keeps what it is given; `breaks` says at which frame it fails."""

    def __init__(self, breaks: str = "") -> None:
        self.protocol = Protocol()
        self.transport = Transport(self.protocol)
        self.breaks = breaks
        self.given: list[Any] = []
        self.reading = asyncio.Event()
        self.reading.set()

    async def send(self, message: str, text: bool) -> None:
        if self.protocol.state is not State.OPEN:
            raise ConnectionClosedError(None, None)
        await self.reading.wait()
        self.given.append(message if text else message.encode())
        if message == self.breaks:
            self.protocol.state = State.CLOSED
            raise ConnectionClosedError(None, None)

    async def close(self, code: int, reason: str) -> None:
        self.given.append((code, reason))
        self.protocol.state = State.CLOSED


class Record(Sent):
    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[tuple[str | None, bool]] = []

    def events(self, venue: str, connection: int, events: Any, maybe: bool = False) -> None:
        self.lines += [(event.id, maybe) for event in events]


class Exchange:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def join(self, connection: Connection, wish: Join) -> None:
        self.heard.append(wish)

    def leave(self, connection: Connection, topic: str) -> None:
        self.heard.append(topic)


def frame(number: str, binary: bool = False) -> Frame:
    return Frame(f"text {number}", (Event("X", "trade", number, number),), binary)


def made(breaks: str = "") -> tuple[Connection, Socket, Record]:
    socket, record = Socket(breaks), Record()
    session = Okx({}, 7, 1_000).session(1, {}, 0)
    return Connection(socket, 1, session, record, lambda: 5), socket, record  # type: ignore[arg-type]


def test_frames_are_handed_over_in_order_and_recorded_when_they_were() -> None:
    async def scene() -> None:
        connection, socket, record = made()
        pump = asyncio.create_task(connection.pump())
        for item in (frame("1"), frame("2", binary=True)):
            connection.put(item)
        assert not connection.idle
        await connection.drained()
        assert (socket.given, record.lines) == (["text 1", b"text 2"], [("1", False), ("2", False)])
        assert connection.idle and connection.pushed_us == 5
        connection.shut()
        await pump
        connection.put(frame("3"))
        assert connection.idle, "nothing waits for a connection that is gone"

    asyncio.run(scene())


def test_an_event_whose_sending_broke_is_recorded_as_uncertain_and_later_ones_not_at_all() -> None:
    async def scene() -> None:
        connection, socket, record = made(breaks="text 2")
        for number in "123":
            connection.put(frame(number))
        await connection.pump()
        assert (socket.given, record.lines) == (["text 1", "text 2"], [("1", False), ("2", True)])

    asyncio.run(scene())


def test_nothing_is_recorded_once_the_connection_is_closing() -> None:
    async def scene() -> None:
        connection, socket, record = made()
        socket.protocol.state = State.CLOSING
        connection.put(frame("1"))
        await connection.pump()
        assert (socket.given, record.lines) == ([], [])

    asyncio.run(scene())


def test_a_session_that_closes_is_obeyed_after_what_it_said_before() -> None:
    async def scene() -> None:
        connection, socket, _ = made()
        exchange = Exchange()
        connection.perform([Join("a"), say("last"), Leave("a"), Close(1008, "why"), say("never")], exchange)
        await connection.pump()
        assert socket.given == ["last", (1008, "why")]
        assert exchange.heard == [Join("a"), "a"]

    asyncio.run(scene())


def test_a_client_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.venues.connection, "OUTBOX_CHARACTERS", 20)

    async def scene() -> None:
        connection, socket, record = made()
        socket.reading.clear()
        pump = asyncio.create_task(connection.pump())
        for number in "123456":
            connection.put(frame(number))
        assert socket.transport.aborted
        socket.reading.set()
        await pump
        assert record.lines == []

    asyncio.run(scene())


def test_room_is_when_little_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.venues.connection, "ROOM_CHARACTERS", 10)

    async def scene() -> None:
        connection, _, record = made()
        connection.put(frame("1"))
        await connection.room()
        connection.put(frame("2"))
        waiting = asyncio.create_task(connection.room())
        pump = asyncio.create_task(connection.pump())
        await waiting
        assert record.lines[0] == ("1", False)
        connection.shut()
        await pump

    asyncio.run(scene())
