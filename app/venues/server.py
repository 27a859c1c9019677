"""One port for all venues: WebSockets and REST by path, and /control.

/<venue>/...   a WebSocket where the request asks for one, else the venue's REST answers
/control/...   see `control`
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakKeyDictionary

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from app.venues import gate
from app.venues.connection import Connection
from app.venues.control import Control, split
from app.venues.dialect import Answer, Session, Venue, answer
from app.venues.faults import Fault
from app.venues.floor import Floor
from app.venues.mischief import Mischief
from app.venues.sent import Sent

FLUSH_S = 0.1
#: How long a client may take to answer the closing handshake.
CLOSE_S = 3.0
#: How long a request may take: /control/stop waits for slow clients.
OPEN_S = 30.0
#: How often it is asked whether a PING or its PONG is due, in seconds.
PING_CHECK_S = 0.25


class _Socket(ServerConnection):
    """A server connection that notes when bytes last came, so that a protocol PING counts as a sign of life.

    Before its handshake it keeps the request's body, which the library would refuse.
    """

    heard: Callable[[], None] | None = None
    body = b""
    _head = b""

    def data_received(self, data: bytes) -> None:
        if self.heard:
            self.heard()
        elif self.request is None:
            self._head += data
            whole = split(self._head)
            if whole is None:
                return
            data, self.body = whole
            self._head = b""
        super().data_received(data)


class ExchangeServer:
    """Serves `venues` from entering to leaving its context; `port` is known inside. Raises: OSError (port taken)."""

    def __init__(
        self,
        venues: list[Venue],
        floor: Floor,
        sent: Sent,
        now_us: Callable[[], int],
        host: str,
        port: int,
        faults: Sequence[Fault] = (),
        patience: float = 1,
    ) -> None:
        self.venues = {venue.name: venue for venue in venues}
        self.floor, self.sent, self.now_us = floor, sent, now_us
        self.host, self.port = host, port
        self.mischief = Mischief(self.venues, floor, sent, now_us, venues[0].seed, patience)
        self.control = Control(floor, sent, self.mischief, self.stop)
        self._faults = list(faults)
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
        self.mischief.add(self._faults)
        self._flushing = asyncio.create_task(self._flush())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection with 1001 and finish the sent file."""
        ended = self.floor.close()
        self._flushing.cancel()
        self.mischief.close()
        self._server.close(reason="server shutting down")
        closing = asyncio.create_task(self._server.wait_closed())
        await asyncio.wait([closing], timeout=CLOSE_S + 1)
        # A client that does not read lets nothing be closed.
        for socket in self._server.all_connections:
            socket.transport.abort()
        await closing
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
        self.mischief.release()
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
            assert isinstance(socket, _Socket)
            return _response(await self.control.answer(request.method, rest, query, socket.body))
        venue = self.venues.get(name)
        if venue is None:
            return _response(answer({"error": "no such venue", "venues": list(self.venues)}, 404))
        address = str((socket.remote_address or ("",))[0])
        refused = venue.refusal(request.headers.get("Origin"), address, self.now_us())
        if refused:
            return _response(answer({"error": {"name": "too_many_requests"}}, refused))
        handshake = "websocket" in request.headers.get("Upgrade", "").lower()
        if self.mischief.rules and (denied := await gate.delayed_or_refused(self.mischief, venue, handshake)):
            return _response(denied)
        if not handshake:
            return _response(self._rest(venue, request.method, path, query))
        if path not in venue.ws_paths:
            return _response(answer({"error": "no such path", "paths": [f"/{name}{p}" for p in venue.ws_paths]}, 404))
        self._connections += 1
        number = self._connections
        if self.mischief.rules:
            await gate.opening(self.mischief, socket, venue, number)
        self._opening[socket] = number, venue.session(number, query, self.now_us())
        return None

    def _rest(self, venue: Venue, method: str, path: str, query: dict[str, str]) -> Answer:
        venue.refused = gate.unlisted(self.mischief, venue) if self.mischief.rules else frozenset()
        try:
            found = venue.rest(path, query, self.now_us()) if method == "GET" else None
        finally:
            venue.refused = frozenset()
        return found or answer({"error": "no such path"}, 404)

    async def _converse(self, socket: ServerConnection) -> None:
        """Everything between the opening handshake and the end of one connection."""
        number, session = self._opening.pop(socket)
        connection = Connection(socket, number, session, self.sent, self.now_us)
        name = connection.venue.name
        assert isinstance(socket, _Socket)
        socket.heard = connection.hear
        self.sent.opened(name, number, self.now_us())
        self.floor.admit(connection)
        self.mischief.admit(connection)
        pump = asyncio.create_task(connection.pump())
        pinging = asyncio.create_task(self._ping(connection)) if connection.venue.ping_every_s else None
        try:
            connection.perform(session.opened(), self.floor)
            async for message in socket:
                text = message if isinstance(message, str) else message.decode(errors="replace")
                if self.mischief.rules:
                    gate.hear(self.mischief, connection, text)
                else:
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

    async def _ping(self, connection: Connection) -> None:
        """Send protocol PINGs; close when a PONG stays out."""
        venue, socket = connection.venue, connection.socket
        pinged_us, pong = self.now_us(), None
        while venue.ping_every_s and not connection.ended:
            await asyncio.sleep(PING_CHECK_S * min(1.0, venue.patience))
            waited_s = (self.now_us() - pinged_us) / 1e6
            if pong and not pong.done() and waited_s >= venue.pong_within_s * venue.patience:
                await socket.close(1008, "Pong timeout")
                return
            if waited_s >= venue.ping_every_s * venue.patience and (pong is None or pong.done()):
                try:
                    pinged_us, pong = self.now_us(), asyncio.ensure_future(await socket.ping())
                except ConnectionClosed:
                    return
                # A PONG that can come no more is nobody's error.
                pong.add_done_callback(lambda done: done.cancelled() or done.exception())


def _response(given: Answer) -> Response:
    """`given` as an HTTP answer, after which the connection closes."""
    headers = Headers(
        {"Content-Type": "application/json", "Content-Length": str(len(given.body)), "Connection": "close"}
        | dict(given.headers)
    )
    return Response(given.status, http.HTTPStatus(given.status).phrase, headers, given.body)
