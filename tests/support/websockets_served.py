"""Two WebSocket servers on loopback: `served` speaks the protocol by a library, `Wire` byte by byte as a test says.

Each runs in a thread for the time of a `with`. `Wire` is for what a well-behaved library never sends: half frames, frames
that announce more than they hold, handshakes refused, connections that just end.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

from websockets.sync.server import ServerConnection, serve

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@contextmanager
def served(handler: Callable[[ServerConnection], None]) -> Iterator[str]:
    """`handler(connection)` for each client; yields the URL."""
    with serve(handler, "127.0.0.1", 0, compression=None, max_size=None) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        finally:
            server.shutdown()
            thread.join()


def frame(opcode: int, payload: bytes, *, fin: bool = True, announced: int | None = None) -> bytes:
    """An unmasked frame; `announced` is the length that its header claims, where that is another."""
    length = len(payload) if announced is None else announced
    first = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        return first + bytes([length]) + payload
    if length < 2**16:
        return first + bytes([126]) + struct.pack("!H", length) + payload
    return first + bytes([127]) + struct.pack("!Q", length) + payload


class Wire:
    """The server's end of one accepted TCP connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(10)
        self._read = connection.makefile("rb")
        self.request_line = self._read.readline().decode().strip()
        self.headers: dict[str, str] = {}
        while line := self._read.readline().decode().strip():
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    def accept(self, *headers: bytes) -> None:
        """Finish the handshake; `headers` are lines to go with it."""
        key = self.headers["sec-websocket-key"].encode()
        token = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + b"".join(line + b"\r\n" for line in headers)
            + b"Sec-WebSocket-Accept: "
            + token.encode()
            + b"\r\n\r\n"
        )

    def refuse(self, status: str, *headers: str) -> None:
        """Answer the handshake with another status."""
        lines = [f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "", ""]
        self.send("\r\n".join(lines).encode())

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Opcode and payload of the client's next frame."""
        first, second = self._read.read(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._read.read(2))
        mask, payload = self._read.read(4), self._read.read(length)
        return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))

    def until_closed(self) -> None:
        """Wait until the client has let go."""
        with suppress(OSError):
            while self._read.read(1):
                pass


@contextmanager
def wired(script: Callable[[Wire], None], clients: int = 1) -> Iterator[str]:
    """`script(wire)` for the first `clients`, one after the other, whose connection then ends; yields the URL.

    What the script raises is raised.
    """
    raised: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def run() -> None:
            try:
                for _ in range(clients):
                    connection, _ = listener.accept()
                    with connection:
                        script(Wire(connection))
            except BaseException as error:  # noqa: BLE001 - told to the test
                raised.append(error)

        thread = Thread(target=run)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            thread.join(20)
    if raised:
        raise raised[0]
