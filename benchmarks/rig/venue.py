"""A venue that is never the bottleneck: Binance's words over TLS, frames encoded beforehand, in a process of its own.

    python benchmarks/venue.py DIRECTORY

makes a self-signed certificate in DIRECTORY, listens on a free port and says both in one JSON line. Then each line on its
standard input is a number: frames a second, all connections together. Each second it says in one JSON line what it did.

A book is a whole top of twenty levels of 1.4 to 1.6 KB, of which a few levels differ from the one before; a trade has about 190
bytes. Only their ids, which count on, and the trades' time are written when a frame is sent. What the other side does not take
in time stays in its connection's buffer; when that holds BEHIND_BYTES the connection is behind, and owes its frames.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import hashlib
import ipaddress
import json
import random
import resource
import ssl
import struct
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TICK_S = 0.01
BEHIND_BYTES = 1 << 20
#: More than a batch of a stream holds: nothing repeats within what is compressed together.
BOOKS = 512
LEVELS = 20
FIRST_ID = 10**11
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / "cert.pem", directory / "key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


def framed(payload: bytes) -> bytes:
    """A whole text frame as a server sends it."""
    if len(payload) < 126:
        return bytes([0x81, len(payload)]) + payload
    return struct.pack(">BBH", 0x81, 126, len(payload)) + payload


def books(symbol: str, seed: str) -> list[tuple[bytes, bytes]]:
    """BOOKS frames of one market, each cut in two where its id belongs. Neighbours differ in a few levels."""
    chance = random.Random(seed)
    mid = chance.uniform(100, 90_000)
    sizes = {side: [chance.uniform(0.0001, 9) for _ in range(LEVELS)] for side in "ba"}
    found = []
    for _ in range(BOOKS):
        for side in "ba":
            for _ in range(3):
                sizes[side][chance.randrange(LEVELS)] = chance.uniform(0.0001, 9)

        def levels(side: str, sign: int) -> str:
            return ",".join(
                f'["{mid + sign * 0.01 * (at + 1):.8f}","{size:.8f}"]' for at, size in enumerate(sizes[side])
            )

        id_ = str(FIRST_ID)
        text = (
            f'{{"stream":"{symbol}@depth20@100ms","data":{{"lastUpdateId":{id_},"bids":[{levels("b", -1)}],'
            f'"asks":[{levels("a", 1)}]}}}}'
        )
        head, _, tail = framed(text.encode()).partition(id_.encode())
        found.append((head, tail))
    return found


def trade(symbol: str) -> tuple[bytes, bytes, bytes, bytes]:
    """A trade's frame around the time it is sent, its id and the time again."""
    id_, time_ = str(FIRST_ID), "1700000000000"
    text = (
        f'{{"stream":"{symbol}@trade","data":{{"e":"trade","E":{time_},"s":"{symbol.upper()}","t":{id_},'
        f'"p":"64250.01000000","q":"0.00123000","T":{time_},"m":true,"M":true}}}}'
    )
    whole = framed(text.encode())
    before, after = whole.split(id_.encode())
    head, between = before.split(time_.encode())
    middle, tail = after.split(time_.encode())
    return head, between, middle, tail


class Market:
    """Frames of one market, one after the other: every second one is a book."""

    def __init__(self, symbol: str, feeds: set[str]) -> None:
        self._books = books(symbol, symbol) if "book" in feeds else []
        self._trade = trade(symbol) if "trade" in feeds else None
        self._book_id = self._trade_id = FIRST_ID
        self._turn = 0

    def frame(self, now_ms: bytes) -> bytes:
        self._turn += 1
        if self._books and (self._trade is None or self._turn & 1):
            self._book_id += 1
            head, tail = self._books[self._book_id % BOOKS]
            return b"%b%d%b" % (head, self._book_id, tail)
        assert self._trade is not None
        self._trade_id += 1  # trades count one by one: a number left out would be a gap
        head, between, middle, tail = self._trade
        return b"%b%b%b%d%b%b%b" % (head, now_ms, between, self._trade_id, middle, now_ms, tail)


class Connection:
    """One subscriber and its markets."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.feeds: dict[str, set[str]] = {}
        self.markets: list[Market] = []
        self._owed, self._turn = 0.0, 0

    def subscribed(self, params: list[str]) -> None:
        for name in params:
            symbol, _, channel = name.partition("@")
            self.feeds.setdefault(symbol, set()).add("trade" if channel == "trade" else "book")
        self.markets = [Market(symbol, feeds) for symbol, feeds in self.feeds.items()]

    def give(self, frames: float, now_ms: bytes) -> tuple[int, int]:
        """Send what is due by now; returns frames sent and frames owed."""
        self._owed += frames
        if self.writer.transport.get_write_buffer_size() > BEHIND_BYTES:
            return 0, int(self._owed)
        due = int(self._owed)
        if due:
            self._owed -= due
            markets, turn = self.markets, self._turn
            self.writer.write(b"".join([markets[(turn + n) % len(markets)].frame(now_ms) for n in range(due)]))
            self._turn = turn + due
        return due, 0


class Venue:
    """All connections, and the rate."""

    def __init__(self) -> None:
        self.rate, self.sent, self.owed = 0.0, 0, 0
        self.connections: list[Connection] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
            key = {name.lower(): value for name, value in fields.items()}.get("sec-websocket-key")
            if key is None:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                writer.close()
                return
            accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
            writer.write(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            while (message := await self._message(reader, writer)) is not None:
                request = json.loads(message)
                writer.write(framed(json.dumps({"result": None, "id": request["id"]}).encode()))
                if request["method"] == "SUBSCRIBE":
                    connection.subscribed(request["params"])
                    if connection not in self.connections:
                        self.connections.append(connection)
        if connection in self.connections:
            self.connections.remove(connection)
        writer.close()

    async def _message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """The next text message of the client; None at its end. Its close is answered."""
        while True:
            first, second = await reader.readexactly(2)
            size = second & 127
            if size > 125:
                size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
            mask, payload = await reader.readexactly(4), await reader.readexactly(size)
            payload = bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))
            if first & 15 == 1:
                return payload
            if first & 15 == 8:
                writer.write(bytes([0x88, len(payload)]) + payload)
                await writer.drain()
                return None
            if first & 15 == 9:
                writer.write(bytes([0x8A, len(payload)]) + payload)

    async def send(self) -> None:
        """Every TICK_S, to each connection its part of what is due; a tick that comes late is made up for."""
        before_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            due, before_s = self.rate * (now_s - before_s), now_s
            now_ms = b"%d" % (time.time_ns() // 1_000_000)
            live = [connection for connection in self.connections if connection.markets]
            self.owed = 0
            for connection in live:
                sent, owed = connection.give(due / len(live), now_ms)
                self.sent += sent
                self.owed += owed

    async def tell(self) -> None:
        """One line a second; `cpu`: the part of a core that this process used."""
        before = time.monotonic(), _cpu_s()
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic(), _cpu_s()
            told = {
                "sent": self.sent, "owed": self.owed, "connections": len(self.connections),
                "cpu": round((now[1] - before[1]) / (now[0] - before[0]), 3),
            }  # fmt: skip
            before = now
            print(json.dumps(told), flush=True)

    async def listen(self) -> None:
        """What is wanted, until there is nobody who wants anything."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            self.rate = float(line)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main(directory: Path) -> None:
    cert, key = certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    venue = Venue()
    server = await asyncio.start_server(venue.serve, "127.0.0.1", 0, ssl=context, backlog=512)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"wss://127.0.0.1:{port}", "certificate": str(cert)}), flush=True)
    tasks = [asyncio.create_task(venue.send()), asyncio.create_task(venue.tell())]
    await venue.listen()
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
