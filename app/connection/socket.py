"""Reads and writes on one WebSocket, by websocket-client; only app/connection/frames.py knows it too.

Frames come out as bytes, undecoded and unvalidated: the library's UTF-8 check is pure Python and slower by a factor of
forty (docs/decisions/0003), and the session decodes strictly anyway. Pings are answered here, by the library. Every call
has a timeout, 0 where nobody waits; one in the middle of a frame keeps what has been read and goes on at the next call.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Collection
from contextlib import suppress
from http.cookies import CookieError
from typing import Any
from urllib.parse import urlsplit

import websocket

from app.addresses import peer_complaint
from app.clock import monotonic_s
from app.connection import tls
from app.connection.backoff import told_s
from app.connection.frames import Frames

#: How often a handshake that is overdue is looked at again: it may not have begun to read yet.
OVERDUE_S = 0.1
#: A peer that sends nothing but pings must not keep the reader from its timers.
CONTROL_FRAMES_IN_A_ROW = 16
#: What is to be received without waiting is over after this, however much comes.
AT_ONCE_S = 0.05
#: A request that the peer's full window does not take ends the connection after this: others wait for the same thread.
SEND_S = 1.0


class ConnectionFailed(Exception):
    """No connection came about. `status` is the HTTP status of the handshake where the venue answered one.

    `retry_after_s` is what its Retry-After header says, None where it says nothing.
    """

    def __init__(self, detail: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail, status)
        self.detail, self.status, self.retry_after_s = detail, status, retry_after_s

    def __str__(self) -> str:
        return self.detail


class ConnectionEnded(Exception):
    """The connection is over. `code` and `text` are those of the close frame, None and a reason where none came."""

    def __init__(self, code: int | None, text: str) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text

    def __str__(self) -> str:
        return f"close frame {self.code} {self.text!r}" if self.code is not None else self.text


class SendFailed(ConnectionEnded):
    """Nothing more can be sent; what had come before can still be received."""


class Socket:
    """An open connection. Used by one thread at a time."""

    #: Monotonic second at which `receive` returns with nothing.
    _until_s = 0.0
    #: The end that the next `receive` tells.
    _ended: ConnectionEnded | None = None
    #: All that was read has been handed out, as far as it is complete: the next comes when the socket has something. Not so
    #: at first: TLS may have brought frames with the last of the handshake.
    dry = False
    #: The socket came to its end behind what was read.
    _over = False

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float,
        max_frame_bytes: int,
        proxy: str | None = None,
        private_hosts: Collection[str] = (),
    ) -> None:
        """Connect. No `Origin` header is sent (Upbit would allow one request per 10 s), redirects are not followed.

        The handshake must be over `connect_timeout_s` after the call, however slowly the peer answers. A name that leads
        into a private network is left at once, unless `private_hosts` ([security]) has it. Raises: ConnectionFailed.
        """
        keepalive = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        if hasattr(socket, "TCP_KEEPIDLE"):
            keepalive += [(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15), (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)]
        self._ws = websocket.WebSocket(
            sockopt=keepalive,
            sslopt={"context": tls.context()},
            skip_utf8_validation=True,
            enable_multithread=False,
        )
        self._frames = Frames(self._read, self._more, max_frame_bytes)
        self._ws.frame_buffer = self._frames
        options: dict[str, Any] = {"timeout": connect_timeout_s, "suppress_origin": True, "redirect_limit": 0}
        if proxy:
            parts = urlsplit(proxy)
            auth = (parts.username, parts.password or "") if parts.username else None
            options.update(
                http_proxy_host=parts.hostname,
                http_proxy_port=parts.port,
                proxy_type=parts.scheme.replace("https", "http"),
                http_proxy_auth=auth,
            )
        else:
            options["http_no_proxy"] = ["*"]
        done, late = threading.Event(), threading.Event()
        threading.Thread(target=self._cut_off, args=(connect_timeout_s, done, late), daemon=True).start()
        try:
            self._ws.connect(url, **options)  # type: ignore[no-untyped-call]
        except websocket.WebSocketBadStatusException as error:
            status = error.status_code
            retry_after_s = told_s(str((error.resp_headers or {}).get("retry-after", "")))
            raise ConnectionFailed(
                f"the venue answered the handshake with HTTP {status}", status, retry_after_s
            ) from error
        except (websocket.WebSocketException, OSError, ValueError, CookieError) as error:
            if late.is_set():
                raise ConnectionFailed(f"the handshake was not over after {connect_timeout_s:g} s") from error
            raise ConnectionFailed(f"{type(error).__name__}: {error}") from error
        finally:
            done.set()
        self._leave_strangers(urlsplit(proxy or url).hostname or "", private_hosts)
        self._timeout_s = connect_timeout_s
        #: Pings and pongs so far: signs of life of the connection, not of any feed.
        self.control_frames = 0

    def _leave_strangers(self, host: str, private_hosts: Collection[str]) -> None:
        """Nothing but the handshake has been said yet, and over TLS the peer has proved the name."""
        with suppress(OSError):  # it is gone already: the first `receive` says so
            peer = self._ws.sock.getpeername()[0] if self._ws.sock is not None else host
            if why := peer_complaint(peer, host, private_hosts):
                self.close()
                raise ConnectionFailed(why)

    def _cut_off(self, after_s: float, done: threading.Event, late: threading.Event) -> None:
        """End a handshake that is not over in time: the library's timeout begins anew with each byte."""
        done.wait(after_s)
        while not done.wait(OVERDUE_S):
            late.set()
            if self._ws.sock is not None:
                with suppress(OSError):
                    self._ws.sock.shutdown(socket.SHUT_RDWR)

    def receive(self, timeout_s: float) -> list[bytes]:
        """Payloads of the data frames that are there, in order; none when none was complete within `timeout_s`.

        0: only what is there already. Raises: ConnectionEnded, FrameTooLarge.
        """
        if self._ended is not None:
            raise self._ended
        self._set_timeout(timeout_s)
        self._until_s = monotonic_s() + (timeout_s or AT_ONCE_S)
        self.dry, self._frames.waits = False, timeout_s > 0
        try:
            if found := self._frames.whole():
                self.dry = self._frames.plain and not self._over
                return found
            for _ in range(CONTROL_FRAMES_IN_A_ROW):
                opcode, frame = self._ws.recv_data_frame(control_frame=True)
                if opcode not in (websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG):
                    break
                self.control_frames += 1
            else:
                return []
        except websocket.WebSocketTimeoutException:
            self.dry = True
            return []
        except (websocket.WebSocketException, OSError) as error:
            gone = isinstance(error, websocket.WebSocketConnectionClosedException)
            words = "stream ended without a close frame" if gone else f"{type(error).__name__}: {error}"
            self._ended = ConnectionEnded(None, words)
            if found := self._frames.rest():  # a pong that could not be sent; what came behind the ping was received
                return found
            raise self._ended from error
        payload: bytes = frame.data
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
            raise ConnectionEnded(code, payload[2:].decode("utf-8", "replace") or "no reason given")
        return [payload]

    def send(self, frame: str | None) -> None:
        """Send a text frame; None sends a protocol PING. Raises: SendFailed, also where it took SEND_S."""
        self._set_timeout(SEND_S)
        try:
            if frame is None:
                self._ws.ping()
            else:
                self._ws.send(frame)
        except (websocket.WebSocketException, OSError) as error:
            raise SendFailed(None, f"{type(error).__name__} while sending: {error}") from error

    def say_goodbye(self, code: int) -> None:
        """Send the close frame; what the peer had already sent can still be received until its own close frame comes."""
        try:
            self._set_timeout(0.5)
            self._ws.send_close(code)
        except (websocket.WebSocketException, OSError, ValueError):
            pass  # gone already: the next `receive` says so

    def close(self) -> None:
        """Let the socket go, at once."""
        self._ws.shutdown()  # type: ignore[no-untyped-call]

    def fileno(self) -> int:
        """Of the socket: readable when `receive` may have something."""
        return int(self._ws.fileno())  # type: ignore[no-untyped-call]

    def _read(self, size: int) -> bytes:
        """For the frame reader. A peer that always sends a little more in time must not keep `receive` from returning."""
        if monotonic_s() > self._until_s:
            raise websocket.WebSocketTimeoutException
        try:
            data: bytes = self._ws._recv(size)  # type: ignore[no-untyped-call]
        except (BlockingIOError, ssl.SSLWantReadError) as error:  # there is nothing, and nobody is to wait for it
            raise websocket.WebSocketTimeoutException from error
        return data

    def _more(self, size: int) -> bytes:
        """For the frame reader, past the library, which closes a socket that has come to its end: the next read says so."""
        try:
            more = bytes(self._ws.sock.recv(size)) if self._ws.sock is not None else b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except OSError:
            more = b""
        self._over = not more
        return more

    def _set_timeout(self, timeout_s: float) -> None:
        if timeout_s != self._timeout_s:
            self._ws.settimeout(timeout_s)
            self._timeout_s = timeout_s
