"""An S3 server in memory that checks what AWS checks, and fails on demand.

It refuses a wrong SHA-256 (400 BadDigest) and a second put under `If-None-Match: *` (412), and returns the checksum it
computed. Signatures are not checked.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Fault:
    """What one request meets instead of its answer. `key` None: any object but the probe's."""

    method: str
    status: int = 503
    code: str = "SlowDown"
    message: str = ""
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: Do what was asked, then answer with the fault.
    after: bool = False
    #: Send no answer at all until the server stops.
    hangs: bool = False
    #: Announce the whole body and send only so many bytes.
    cut_to_bytes: int | None = None
    #: How many requests meet it.
    times: int = 1


@dataclass
class StrictS3:
    """State of the server. Buckets hold objects by key; tests read and change it at will."""

    url: str = ""
    buckets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    regions: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    #: Method, path and lower-case headers of every request.
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    page_size: int = 1000
    returns_checksum: bool = True
    checksum_type: str | None = "FULL_OBJECT"
    checks_sha256: bool = True
    checks_if_none_match: bool = True
    stopped: Event = field(default_factory=Event)

    def fault_for(self, method: str, key: str) -> Fault | None:
        for fault in self.faults:
            wanted = fault.key == key if fault.key is not None else not key.startswith(".collector-probe/")
            if fault.method == method and wanted and fault.times:
                fault.times -= 1
                return fault
        return None


@contextmanager
def strict_s3() -> Iterator[StrictS3]:
    """A server on a loopback port for as long as the block runs."""
    state = StrictS3()

    class Handler(_Handler):
        s3 = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: StrictS3

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
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.s3.requests.append((self.command, url.path, {name.lower(): text for name, text in self.headers.items()}))
        fault = self.s3.fault_for(self.command, key)
        if fault is None:
            self._answer(*self._do(bucket, key, body, parse_qs(url.query)))
            return
        if fault.cut_to_bytes is not None:
            status, headers, text = self._do(bucket, key, body, {})
            self._answer(status, {**headers, "Content-Length": str(len(text))}, text[: fault.cut_to_bytes])
            self.close_connection = True
            return
        if fault.after or fault.hangs:
            self._do(bucket, key, body, parse_qs(url.query))
        if fault.hangs:
            self.s3.stopped.wait()
            return
        status, headers, text = _error(fault.status, fault.code, fault.message)
        self._answer(status, {**headers, **fault.headers}, text)

    def _do(self, bucket: str, key: str, body: bytes, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        objects = self.s3.buckets.get(bucket)
        if not key and self.command == "PUT":
            self.s3.buckets[bucket] = {}
            self.s3.regions[bucket] = body.decode()
            return 200, {}, b""
        if objects is None:
            return _error(404, "NoSuchBucket")
        if not key:
            return (200, {}, b"") if self.command == "HEAD" else self._list(objects, query)
        if self.command == "PUT":
            return self._put(objects, key, body)
        if key not in objects:
            return _error(404, "NoSuchKey")
        return 200, self._checksum(objects[key]), objects[key]

    def _put(self, objects: dict[str, bytes], key: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.s3.checks_if_none_match and self.headers.get("if-none-match") == "*" and key in objects:
            return _error(412, "PreconditionFailed")
        sent = self.headers.get("x-amz-checksum-sha256")
        if self.s3.checks_sha256 and sent not in (None, _sha256(body)):
            return _error(400, "BadDigest")
        objects[key] = body
        return 200, {}, b""

    def _checksum(self, body: bytes) -> dict[str, str]:
        if not self.s3.returns_checksum or self.headers.get("x-amz-checksum-mode") != "ENABLED":
            return {}
        kind = {"x-amz-checksum-type": self.s3.checksum_type} if self.s3.checksum_type else {}
        return {"x-amz-checksum-sha256": _sha256(body), **kind}

    def _list(self, objects: dict[str, bytes], query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
        keys = [key for key in sorted(objects) if key.startswith(prefix) and key > after]
        page, rest = keys[: self.s3.page_size], keys[self.s3.page_size :]
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if rest else ""
        contents = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in page)
        truncated = "true" if rest else "false"
        xml = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{contents}</ListBucketResult>"
        return 200, {"Content-Type": "application/xml"}, xml.encode()

    def _answer(self, status: int, headers: dict[str, str], text: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)


def _error(status: int, code: str, message: str = "") -> tuple[int, dict[str, str], bytes]:
    xml = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return status, {"Content-Type": "application/xml"}, xml.encode()


def _sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
