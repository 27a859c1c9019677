"""What a fault does to one connection. When it does, `mischief` decides."""

from __future__ import annotations

import asyncio
import socket
import struct

from websockets.protocol import State

from app.venues.connection import Connection
from app.venues.detour import Detour, Dribble, Mute
from app.venues.dialect import Frame
from app.venues.spoiled import TEXT, bomb, head, padding

#: A client that was sent a FIN and does not close is cut after so long.
FIN_S = 3.0
#: linux/tcp_states.h
ESTABLISHED = 1


def open_still(connection: Connection) -> bool:
    """Whether frames may be sent."""
    return connection.socket.protocol.state is State.OPEN


def half_open(connection: Connection) -> None:
    """Nothing goes out or comes in any more, not even a FIN."""
    Mute(connection.socket)
    connection.forsake()


def left(connection: Connection) -> bool:
    """Whether the client of a half-open connection is gone. Only the kernel knows: nothing is read any more."""
    wire = connection.socket.transport.get_extra_info("socket")
    if not hasattr(socket, "TCP_INFO"):
        return False
    try:
        return bool(wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED)
    except OSError:
        return True


def cut(connection: Connection, how: str) -> None:
    """End the TCP connection without a close frame."""
    transport = connection.socket.transport
    connection.forsake()
    if how == "fin" and transport.can_write_eof() and not transport.is_closing():
        transport.write_eof()
        asyncio.get_running_loop().call_later(FIN_S, transport.abort)
        return
    # With nothing to linger for, closing sends RST.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def close(connection: Connection, code: int, reason: str) -> bool:
    """Close with a closing handshake."""
    await connection.socket.close(code, reason)
    return False


async def send(connection: Connection, opcode: int, payload: bytes, rsv1: bool = False) -> bool:
    """Send a frame that the library would not."""
    if open_still(connection):
        connection.socket.transport.write(head(opcode, len(payload), rsv1) + payload)
        await connection.socket.drain()
    return open_still(connection)


async def send_oversized(connection: Connection, size: int) -> bool:
    """Send one text frame of `size` bytes, holding one piece of it at a time."""
    detour = Detour(connection.socket)
    wire = detour.real
    try:
        wire.write(head(TEXT, size))
        for piece in padding(size):
            if wire.is_closing() or not open_still(connection):
                return False
            wire.write(piece)
            await connection.socket.drain()
    finally:
        detour.end()
    return open_still(connection)


async def send_bomb(connection: Connection, size: int) -> bool:
    """Send a compressed frame that inflates to `size` bytes."""
    return await send(connection, TEXT, await asyncio.to_thread(bomb, size), rsv1=True)


async def send_slowly(connection: Connection, frame: Frame, byte_s: float) -> bool:
    """Send a frame byte by byte; it is recorded when the last one is out."""
    if open_still(connection):
        Dribble(connection.socket, byte_s)
    return await connection.hand_over(frame)
