"""One port for all venues: WebSockets and REST by path, and /control.

/<venue>/...          a WebSocket where the request asks for one, else the venue's REST answers
POST /control/stop    generate nothing more; answers when every event sent is in the sent file
POST /control/start   go on
GET  /control/status  connections, events sent by venue and feed, stopped
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakKeyDictionary

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from app.venues.connection import Connection
from app.venues.dialect import Answer, Session, Venue, answer
from app.venues.floor import Floor, Status
from app.venues.sent import Sent

FLUSH_S = 0.1
#: How long a client may take to answer the closing handshake.
CLOSE_S = 3.0
#: How long a request may take: /control/stop waits for slow clients.
OPEN_S = 30.0


class _Socket(ServerConnection):
    """A server connection that notes when bytes last came, so that a protocol PING counts as a sign of life."""

    heard: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        if self.heard:
            self.heard()
        super().data_received(data)


class ExchangeServer:
    """Serves `venues` from entering to leaving its context; `port` is known inside. Raises: OSError (port taken)."""

    def __init__(
        self, venues: list[Venue], floor: Floor, sent: Sent, now_us: Callable[[], int], host: str, port: int
    ) -> None:
        self.venues = {venue.name: venue for venue in venues}
        self.floor, self.sent, self.now_us = floor, sent, now_us
        self.host, self.port = host, port
        self._connections = 0
        self._opening: WeakKeyDictionary[ServerConnection, tuple[int, Session]] = WeakKeyDictionary()
        self._server: Server
        self._flushing: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._converse,
            self.host,
            self.port,
            process_request=self._request,
            create_connection=_Socket,
            compression=None,
            open_timeout=OPEN_S,
            ping_interval=None,
            close_timeout=CLOSE_S,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self.floor.open()
        self._flushing = asyncio.create_task(self._flush())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection with 1001 and finish the sent file."""
        ended = self.floor.close()
        self._flushing.cancel()
        self._server.close(reason="server shutting down")
        await self._server.wait_closed()
        await asyncio.gather(*ended, self._flushing, return_exceptions=True)
        self.sent.close()

    async def serve_until(self, finished: asyncio.Event) -> None:
        """Return when `finished` is set. Raises: OSError when the sent file cannot be written."""
        finishing = asyncio.create_task(finished.wait())
        await asyncio.wait([finishing, self._flushing], return_when=asyncio.FIRST_COMPLETED)
        finishing.cancel()
        if self._flushing.done():
            self._flushing.result()

    async def stop(self) -> bool:
        """Stop generating. Returns when the record is on disk, whether clients took everything."""
        drained = await self.floor.stop()
        self.sent.flush()
        return drained

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.sent.flush()

    async def _request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer a REST or control request, or let the opening handshake go on (None)."""
        url = urlsplit(request.path)
        query = dict(parse_qsl(url.query))
        name, _, rest = url.path.removeprefix("/").partition("/")
        path = url.path[len(name) + 1 :]
        if name == "control":
            return _response(await self._control(request.method, rest))
        venue = self.venues.get(name)
        if venue is None:
            return _response(answer({"error": "no such venue", "venues": list(self.venues)}, 404))
        address = str((socket.remote_address or ("",))[0])
        refused = venue.refusal(request.headers.get("Origin"), address, self.now_us())
        if refused:
            return _response(answer({"error": {"name": "too_many_requests"}}, refused))
        if "websocket" not in request.headers.get("Upgrade", "").lower():
            found = venue.rest(path, query, self.now_us()) if request.method == "GET" else None
            return _response(found or answer({"error": "no such path"}, 404))
        if path not in venue.ws_paths:
            return _response(answer({"error": "no such path", "paths": [f"/{name}{p}" for p in venue.ws_paths]}, 404))
        self._connections += 1
        self._opening[socket] = self._connections, venue.session(self._connections, query, self.now_us())
        return None

    async def _control(self, method: str, word: str) -> Answer:
        wanted = {"stop": "POST", "start": "POST", "status": "GET"}.get(word)
        if wanted is None:
            return answer({"error": "no such path", "paths": ["stop", "start", "status"]}, 404)
        if method != wanted:
            return answer({"error": f"use {wanted}"}, 405)
        if word == "stop":
            await self.stop()
        elif word == "start":
            self.floor.start()
        connections = self.floor.connections
        queued = sum(not connection.idle for connection in connections)
        return answer(Status(len(connections), queued, self.sent.counts, self.floor.stopped))

    async def _converse(self, socket: ServerConnection) -> None:
        """Everything between the opening handshake and the end of one connection."""
        number, session = self._opening.pop(socket)
        connection = Connection(socket, number, session, self.sent, self.now_us)
        name = connection.venue.name
        assert isinstance(socket, _Socket)
        socket.heard = connection.hear
        self.sent.opened(name, number, self.now_us())
        self.floor.admit(connection)
        pump = asyncio.create_task(connection.pump())
        pinging = asyncio.create_task(_ping(socket, connection.venue)) if connection.venue.ping_every_s else None
        try:
            connection.perform(session.opened(), self.floor)
            async for message in socket:
                text = message if isinstance(message, str) else message.decode(errors="replace")
                connection.perform(session.received(text, self.now_us()), self.floor)
        except ConnectionClosed:
            pass
        finally:
            if pinging:
                pinging.cancel()
            self.floor.gone(connection)
            connection.shut()
            # Only after a fault of ours is there anything left to close.
            await socket.close(1011, "internal error")
            await pump
            ours, theirs = socket.protocol.close_sent, socket.protocol.close_rcvd
            theirs_first = bool(socket.protocol.close_rcvd_then_sent)
            began = theirs if theirs_first else ours
            code, reason = (began.code, began.reason) if began else (1006, "")
            acknowledged = ours is not None and theirs is not None and not theirs_first
            self.sent.closed(name, number, self.now_us(), code, reason, acknowledged)


async def _ping(socket: ServerConnection, venue: Venue) -> None:
    """Send protocol PINGs; close when a PONG stays out."""
    while venue.ping_every_s:
        await asyncio.sleep(venue.ping_every_s)
        try:
            pong = await socket.ping()
            await asyncio.wait_for(pong, venue.pong_within_s)
        except TimeoutError:
            await socket.close(1008, "Pong timeout")
        except ConnectionClosed:
            return


def _response(given: Answer) -> Response:
    """`given` as an HTTP answer, after which the connection closes."""
    headers: list[tuple[str, Any]] = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(given.body))),
        ("Connection", "close"),
    ]
    return Response(given.status, http.HTTPStatus(given.status).phrase, Headers(headers), given.body)
