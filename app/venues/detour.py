"""What stands in for a socket's transport while a fault has it: writes that are kept back, dribbled, or dropped.

The WebSocket library answers pings and closes on its own, at any time. It writes to its transport, so the transport is
where a fault must stand: else a pong lands in the middle of a frame that is half sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection


class Detour:
    """Keeps back everything written until `end`."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket, self.real = socket, socket.transport
        self._kept: list[bytes] = []
        self._finished = False
        socket.transport = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def write(self, data: bytes) -> None:
        """Keep it for the end."""
        self._kept.append(bytes(data))

    def write_eof(self) -> None:
        """The same for the FIN."""
        self._finished = True

    def end(self) -> None:
        """Give the transport back and write what was kept, unless another fault has taken it meanwhile."""
        now: object = self.socket.transport
        mine = now is self
        if mine:
            self.socket.transport = self.real
        if self.socket.paused:
            self.socket.resume_writing()
        if not mine or self.real.is_closing():
            return
        for data in self._kept:
            self.real.write(data)
        if self._finished:
            self.real.write_eof()


class Dribble(Detour):
    """Lets the first thing written through byte by byte, `byte_s` seconds each, then the rest at once, and ends."""

    def __init__(self, socket: ServerConnection, byte_s: float) -> None:
        super().__init__(socket)
        self.byte_s = byte_s
        self._dribbling: asyncio.Task[None] | None = None

    def write(self, data: bytes) -> None:
        if self._dribbling:
            super().write(data)
            return
        # Whoever sends now waits, as behind a slow line.
        self.socket.pause_writing()
        self._dribbling = asyncio.create_task(self._dribble(bytes(data)))

    async def _dribble(self, data: bytes) -> None:
        try:
            for place in range(len(data)):
                if place:
                    await asyncio.sleep(self.byte_s)
                if self.real.is_closing():
                    return
                self.real.write(data[place : place + 1])
        finally:
            self.end()


class Mute(Detour):
    """Writes and reads nothing any more, and keeps the TCP connection open."""

    def __init__(self, socket: ServerConnection) -> None:
        super().__init__(socket)
        # The library's queue of messages would resume reading when there is room in it again.
        socket.recv_messages.resume = lambda: None
        self.real.pause_reading()

    def write(self, data: bytes) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
