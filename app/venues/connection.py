"""One client: the frames that wait for it, the loop that hands them to the socket, the record of what was sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from app.venues.dialect import Action, Close, Frame, Join, Leave, Send, Session
from app.venues.sent import Sent

#: A client for which more waits than this reads too slowly and is cut, as the venues do. In characters.
OUTBOX_CHARACTERS = 64 << 20
#: Recorded frames, which are there all at once, wait until less than this is queued.
ROOM_CHARACTERS = 1 << 20

#: Something done to the connection when everything queued before has been handed over; whether it goes on afterwards.
Deed = Callable[["Connection"], Awaitable[bool]]


class Exchange(Protocol):
    """Where a connection's subscriptions go."""

    def join(self, connection: Connection, wish: Join) -> None:
        """Begin to send the topic's frames to the connection."""

    def leave(self, connection: Connection, topic: str) -> None:
        """Send no more of the topic to the connection."""


class Connection:
    """Frames go out in the order of `put`; an event is recorded when its frame has been handed to the open socket."""

    def __init__(
        self, socket: ServerConnection, number: int, session: Session, sent: Sent, now_us: Callable[[], int]
    ) -> None:
        self.socket, self.number, self.session = socket, number, session
        self.venue = session.venue
        self.now_us = now_us
        self._sent = sent
        self._outbox: deque[Frame | Close | Deed | None] = deque()
        self._waiting = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._ended = False
        #: Takes the frames with events in place of the outbox, while something is to go wrong.
        self.tamper: Callable[[Connection, Frame], None] | None = None
        self.heard_us = self.pushed_us = now_us()

    @property
    def idle(self) -> bool:
        """Whether everything queued has been handed over."""
        return self._emptied.is_set()

    def hear(self) -> None:
        """The client gave a sign of life."""
        self.heard_us = self.now_us()

    def perform(self, actions: list[Action], exchange: Exchange) -> None:
        """What the session decided, in order."""
        for action in actions:
            match action:
                case Send(frame):
                    self.put(frame)
                case Join():
                    exchange.join(self, action)
                case Leave(topic):
                    exchange.leave(self, topic)
                case Close():
                    self._append(action)

    def put(self, frame: Frame) -> None:
        """Queue a frame, or leave that to whoever tampers with it."""
        if self.tamper is not None and frame.events:
            self.tamper(self, frame)
        else:
            self.queue(frame)

    def queue(self, frame: Frame) -> None:
        """Queue a frame; a client that does not read is cut instead."""
        if self._ended:
            return
        self._waiting += len(frame.text)
        if self._waiting > OUTBOX_CHARACTERS:
            # It does not read, so it would not read a Close either.
            self.socket.transport.abort()
            self._outbox.clear()
            self.shut()
            return
        if self._waiting >= ROOM_CHARACTERS:
            self._roomy.clear()
        self._append(frame)

    def close(self, code: int, reason: str) -> None:
        """Close once everything queued has been handed over."""
        self._append(Close(code, reason))

    def then(self, deed: Deed) -> None:
        """Do this once everything queued has been handed over."""
        self._append(deed)

    def shut(self) -> None:
        """Send nothing more; `pump` returns."""
        self._append(None)

    def forsake(self) -> None:
        """Send nothing more, not even what is queued, and wait for nothing: the connection is as good as gone."""
        self._outbox.clear()
        self.shut()
        self._end()

    @property
    def ended(self) -> bool:
        """Whether nothing is sent any more."""
        return self._ended

    async def room(self) -> None:
        """Return when little is waiting."""
        await self._roomy.wait()

    async def drained(self) -> None:
        """Return when everything queued so far has been handed over, or the connection is gone."""
        await self._emptied.wait()

    async def pump(self) -> None:
        """Hand frames to the socket until the connection ends. Never cancelled: it knows what was half sent."""
        try:
            while True:
                while not self._outbox:
                    self._emptied.set()
                    self._filled.clear()
                    await self._filled.wait()
                item = self._outbox.popleft()
                if item is None:
                    return
                if isinstance(item, Close):
                    await self.socket.close(item.code, item.reason)
                    return
                if not isinstance(item, Frame):
                    if not await item(self):
                        return
                    continue
                if not await self.hand_over(item):
                    return
                self._waiting -= len(item.text)
                if self._waiting < ROOM_CHARACTERS:
                    self._roomy.set()
        finally:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._emptied.set()
        self._roomy.set()

    async def hand_over(self, frame: Frame) -> bool:
        """Give the socket a frame and record its events; whether the connection is still open afterwards."""
        # The socket writes at once when it is open, then may wait for the client to read: what breaks during that
        # wait has been written, and perhaps read.
        written = self.socket.protocol.state is State.OPEN
        try:
            await self.socket.send(frame.text, text=not frame.binary)
        except ConnectionClosed:
            if written:
                self._sent.events(self.venue.name, self.number, frame.events, maybe=True)
            return False
        self.pushed_us = self.now_us()
        still_open = self.socket.protocol.state is State.OPEN
        self._sent.events(self.venue.name, self.number, frame.events, maybe=not still_open)
        return still_open

    def _append(self, item: Frame | Close | Deed | None) -> None:
        if self._ended:
            return
        self._outbox.append(item)
        self._emptied.clear()
        self._filled.set()
