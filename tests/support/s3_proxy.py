"""An HTTP proxy before a real S3 server that misbehaves on request, by operation and so many times.

It knows requests by the names boto3 has for them (`put_object`), passes them on as they are (the signature covers the
Host they were sent to) and can refuse, delay, cut, alter or forget any of them. With `checksums` it also is the store that
the server behind it is not: one that computes SHA-256 itself and refuses a wrong one, as AWS does, or that echoes it.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from app.objects.probe import PROBE_KEY

#: So many bytes are sent at once where a body is slow.
SLOW_PIECE_BYTES = 1024
SHA256_HEADER = "x-amz-checksum-sha256"
#: A meaning of one hop only.
_HOP = {"connection", "expect", "transfer-encoding", "keep-alive"}


class Answer(NamedTuple):
    """What a server says."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


def refusal(status: int, code: str, message: str = "", **headers: str) -> Answer:
    """An answer as S3 refuses: its code in XML, headers by name with `_` for `-`."""
    xml = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, {"Content-Type": "application/xml", **named}, xml.encode())


@dataclass
class Fault:
    """What the next `times` requests of `operation` meet. Of a request that several faults are for, the first is met."""

    operation: str
    times: int = 1
    #: How the key must end; the probe's own is never met unless it is named whole.
    key: str = ""
    #: Answered so, the server not being asked.
    instead: Answer | None = None
    #: Headers of the request that the server does not see, in lower case.
    forgets: tuple[str, ...] = ()
    #: What becomes of the body of the request on its way.
    body: Callable[[bytes], bytes] | None = None
    #: What becomes of the answer on its way.
    answer: Callable[[Answer], Answer] | None = None
    #: The connection is cut: `before` the server is asked, `after` it answered, `within` the body of the answer.
    cut: str = ""
    #: The server's answer is not passed on as long as the proxy runs.
    withheld: bool = False
    #: The request is read, or the body of its answer sent, at this rate.
    bytes_per_s: float | None = None


class Request(NamedTuple):
    operation: str
    key: str
    headers: Mapping[str, str]


@dataclass
class Proxy:
    """A running proxy. Tests add to `faults` and read `requests`."""

    url: str = ""
    #: "server": as the one behind it; "computed": as AWS; "echoed": the client's own word comes back unchecked.
    checksums: str = "server"
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    #: Keys of requests that are in the middle of their fault: a body half received, an answer withheld.
    begun: list[str] = field(default_factory=list)
    stopped: Event = field(default_factory=Event)
    #: Path -> the checksum that is answered for it.
    _sha256: dict[str, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def asked(self, operation: str, ending: str = "") -> list[str]:
        """Keys of the requests of `operation` so far, without the probe's."""
        return [
            r.key for r in self.requests if r.operation == operation and r.key.endswith(ending) and r.key != PROBE_KEY
        ]

    def until(self, condition: Callable[[], bool], within_s: float = 30) -> None:
        """Wait for something that a request of another process brings about."""
        for _ in range(int(within_s / 0.01)):
            if condition():
                return
            self.stopped.wait(0.01)
        raise AssertionError(f"not so within {within_s:g} s: {self.requests}")

    def fault_for(self, operation: str, key: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                met = fault.key == key if PROBE_KEY in (key, fault.key) else key.endswith(fault.key)
                if fault.operation == operation and met and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def refused(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """As the store that computes checksums says of a put, and nothing where it takes it."""
        computed = base64.b64encode(hashlib.sha256(body).digest()).decode()
        sent = headers.get(SHA256_HEADER)
        if self.checksums == "computed" and sent not in (None, computed):
            return refusal(400, "BadDigest", "The SHA256 you specified did not match what we received")
        if sent is not None:
            self._sha256[path] = computed if self.checksums == "computed" else sent
        return None

    def described(self, path: str, answer: Answer) -> Answer:
        """The answer to a HEAD of an object with the checksum of this store."""
        if answer.status != 200 or path not in self._sha256:
            return answer
        return answer._replace(
            headers={**answer.headers, SHA256_HEADER: self._sha256[path], "x-amz-checksum-type": "FULL_OBJECT"}
        )


@contextmanager
def before(server_url: str, checksums: str = "server") -> Iterator[Proxy]:
    """A proxy before the server, on a loopback port, for as long as the block runs."""
    proxy = Proxy(checksums=checksums)

    class Handler(_Handler):
        state = proxy
        behind = urlsplit(server_url).netloc

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def operation_of(method: str, key: str, query: Mapping[str, object]) -> str:
    """boto3's name of a request.

    >>> operation_of("PUT", "a/b", {}), operation_of("GET", "", {"list-type": ["2"]})
    ('put_object', 'list_objects_v2')
    """
    if key:
        return f"{method.lower()}_object"
    if method == "GET":
        return "list_objects_v2" if "list-type" in query else "get_bucket"
    return "create_bucket" if method == "PUT" else f"{method.lower()}_bucket"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Proxy
    behind: str

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        operation = operation_of(self.command, key, parse_qs(url.query))
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.state.requests.append(Request(operation, key, headers))
        fault = self.state.fault_for(operation, key) or Fault(operation)
        try:
            body = self._received(int(headers.get("content-length") or 0), fault, key)
            if fault.cut == "before":
                self._cut()
                return
            answer = fault.instead or self._passed_on(operation, url.path, headers, body, fault)
            if fault.withheld:
                self.state.begun.append(key)
                self.state.stopped.wait()
                self._cut()
            elif fault.cut == "after":
                self._cut()
            else:
                self._answer(fault.answer(answer) if fault.answer else answer, fault)
        except OSError:  # the client has given up
            self.close_connection = True

    def _received(self, size_bytes: int, fault: Fault, key: str) -> bytes:
        if fault.bytes_per_s is None or self.command != "PUT":
            return self.rfile.read(size_bytes)
        # A buffer of the system's usual size would take a small body whole, and the client would see nothing of it.
        body = b""
        while len(body) < size_bytes and not self.state.stopped.wait(SLOW_PIECE_BYTES / fault.bytes_per_s):
            piece = self.rfile.read1(min(SLOW_PIECE_BYTES, size_bytes - len(body)))  # type: ignore[attr-defined]
            if not piece:
                raise ConnectionResetError
            body += piece
            self.state.begun.append(key)
        return body

    def _passed_on(self, operation: str, path: str, headers: Mapping[str, str], body: bytes, fault: Fault) -> Answer:
        body = fault.body(body) if fault.body else body
        checked = self.state.checksums != "server"
        if checked and operation == "put_object" and (refused := self.state.refused(path, headers, body)):
            return refused
        passed = {name: text for name, text in headers.items() if name not in {*_HOP, *fault.forgets}}
        if self.command == "PUT":
            passed["content-length"] = str(len(body))
        upstream = http.client.HTTPConnection(self.behind, timeout=30)
        try:
            upstream.request(self.command, self.path, body if self.command == "PUT" else None, passed)
            said = upstream.getresponse()
            kept = {name: text for name, text in said.getheaders() if name.lower() not in _HOP}
            answer = Answer(said.status, kept, said.read())
        finally:
            upstream.close()
        return self.state.described(path, answer) if checked and operation == "head_object" else answer

    def _answer(self, answer: Answer, fault: Fault) -> None:
        # A HEAD announces the size of what it does not send.
        size = answer.headers.get("Content-Length") if self.command == "HEAD" and not fault.instead else None
        self.send_response(answer.status)
        for name, text in answer.headers.items():
            if name.lower() not in ("content-length", "date", "server"):
                self.send_header(name, text)
        self.send_header("Content-Length", size or str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut == "within":
            self.wfile.write(answer.body[: len(answer.body) // 2])
            self._cut()
        elif fault.bytes_per_s is not None and self.command == "GET":
            for start in range(0, len(answer.body), SLOW_PIECE_BYTES):
                self.wfile.write(answer.body[start : start + SLOW_PIECE_BYTES])
                if self.state.stopped.wait(SLOW_PIECE_BYTES / fault.bytes_per_s):
                    return
        else:
            self.wfile.write(answer.body)

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def flipped(body: bytes) -> bytes:
    """One bit in the middle the other way round."""
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def truncated(body: bytes) -> bytes:
    """Without its last bytes."""
    return body[:-7]


def padded(body: bytes) -> bytes:
    """Cut in the middle and filled up with zeros: the size is right."""
    return body[: len(body) // 2].ljust(len(body), b"\0")


def within(change: Callable[[bytes], bytes]) -> Callable[[Answer], Answer]:
    """`change` on the body of an answer that has one to change."""
    return lambda answer: answer._replace(body=change(answer.body)) if answer.status == 200 else answer


def without(*names: str) -> Callable[[Answer], Answer]:
    """An answer without these headers, in lower case."""
    return lambda answer: answer._replace(headers={k: v for k, v in answer.headers.items() if k.lower() not in names})
