"""A stream against a server that breaks the protocol in every way: each connection ends by a name, no thread ever dies.

What came in whole before the break is what the session makes of it alone: the same events, numbers and quarantined bytes.
"""

from __future__ import annotations

import os
import random
import socket
import struct
from contextlib import suppress

import pytest

from app.codec import BatchCodec
from app.connection.frames import OVERSIZED_HEAD_BYTES
from app.connection.session import Session
from app.exchanges import EXCHANGES
from app.model import Batch, Event, Quarantined
from app.sequence import Continuity
from app.wiring import Wiring
from tests.support.fuzzed import recorded
from tests.support.mutations import mutated
from tests.support.path import Collecting, bybit_trade, until
from tests.support.rig import Rig
from tests.support.websockets_served import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Wire, frame, wired

SEED = int(os.environ.get("COLLECTOR_TEST_SEED", "20261121"))
STREAM = "bybit-0-orderbook.trade"
MESSAGES = 25
GOOD = bybit_trade("BTCUSDT", 1).encode()
WORDS = "€ bye".encode()

#: How a connection may end: what is sent last, and the name its end must get.
ENDS: dict[str, tuple[bytes, str]] = {
    "continuation of nothing": (frame(CONTINUATION, b"more"), "stream_ended"),
    "last continuation of nothing": (frame(CONTINUATION, b"", fin=False), "stream_ended"),
    "a message within a message": (frame(TEXT, GOOD[:9], fin=False) + frame(TEXT, GOOD), "stream_ended"),
    "half a message, then the end": (frame(TEXT, GOOD[:9], fin=False), "stream_ended"),
    "half a frame": (frame(TEXT, GOOD)[:-9], "stream_ended"),
    "half a header": (frame(BINARY, b"", announced=70_000)[:4], "stream_ended"),
    **{f"opcode {n}": (frame(n, b"x"), "stream_ended") for n in (3, 4, 7, 11, 15)},
    **{f"reserved bit {bit:#x}": (bytes([0x80 | bit | TEXT, 2]) + b"{}", "stream_ended") for bit in (0x40, 0x20, 0x10)},
    "a ping in fragments": (frame(PING, b"x", fin=False), "stream_ended"),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), "stream_ended"),
    "no WebSocket at all": (b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", "stream_ended"),
    "a close of one byte": (frame(CLOSE, b"\x03"), "stream_ended"),
    "a close of 126 bytes": (frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124), "stream_ended"),
    **{
        f"close {code}": (frame(CLOSE, struct.pack("!H", code)), "stream_ended")
        for code in (0, 999, 1004, 1005, 1006, 2999, 5000, 65535)
    },
    **{
        f"close {code}": (frame(CLOSE, struct.pack("!H", code) + WORDS), "close_frame")
        for code in (1000, 1001, 1011, 3000, 4999)
    },
    "a close without a code": (frame(CLOSE, b""), "stream_ended"),
    "a close that is not UTF-8": (frame(CLOSE, struct.pack("!H", 1008) + b"\xff\xfe"), "close_frame"),
    "data behind a close": (frame(CLOSE, struct.pack("!H", 1001)) + frame(TEXT, GOOD), "close_frame"),
    "nothing": (b"", "stream_ended"),
    "2^63 bytes announced": (frame(TEXT, b"x" * 70_000, announced=2**63), "oversized_frame"),
    "2^64 - 1 bytes announced": (frame(BINARY, b"x" * 70_000, announced=2**64 - 1), "oversized_frame"),
}  # fmt: skip


def on_the_wire(rng: random.Random, message: bytes) -> bytes:
    """A message as text or binary, whole or in fragments, with control frames before and between."""
    opcode = rng.choice((TEXT, BINARY))
    noise = [
        frame(rng.choice((PING, PONG)), rng.randbytes(rng.choice((0, 4, 125)))) for _ in range(rng.choice((0, 0, 1, 3)))
    ]
    if rng.random() < 0.7:
        return b"".join(noise) + frame(opcode, message)
    cuts = sorted(rng.randrange(len(message) + 1) for _ in range(rng.randrange(1, 4)))
    pieces = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    parts = [
        frame(opcode if n == 0 else CONTINUATION, piece, fin=n == len(pieces) - 1) for n, piece in enumerate(pieces)
    ]
    return b"".join(part for pair in zip(parts, noise + [b""] * len(parts), strict=False) for part in pair)


Told = list[tuple[object, ...]]


def told(batches: list[Batch]) -> tuple[Told, Told]:
    """Events and undecoded frames, without the times of their receipt."""
    events = [(e.symbol, e.feed, e.number, e.sequence_id, e.data) for b in batches for e in b.events]
    return events, [(q.number, q.reason, q.frame) for b in batches for q in b.quarantined]


def alone(wiring: Wiring, messages: list[bytes], last: bytes) -> tuple[Told, Told]:
    """The same of a session that is given the messages, and of what `last` announces its first bytes, without any socket."""
    stream = wiring.streams[STREAM]
    session = Session(
        EXCHANGES["bybit"], stream.subscription, Continuity(), epoch="ab" * 16, dead_timeout_s=30,
        data_timeout_s=stream.data_timeout_s,
    )  # fmt: skip
    session.opened(0.0, 0)
    units = [unit for n, message in enumerate(messages) for unit in session.received(message, 0, n / 100)]
    if len(last) > OVERSIZED_HEAD_BYTES:
        units += session.oversized(int.from_bytes(last[2:10], "big"), last[10 : 10 + OVERSIZED_HEAD_BYTES], 0)
    events, undecoded = (tuple(u for u in units if isinstance(u, kind)) for kind in (Event, Quarantined))
    return told([Batch(STREAM, "bybit", "ab" * 16, 1, 0, (), events, undecoded)])  # type: ignore[arg-type]


@pytest.mark.exhaustive
def test_however_a_server_breaks_the_protocol_the_connection_ends_by_name_and_the_stream_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(SEED)
    pool = [line for lines in recorded("bybit") for line in lines]
    said: list[list[bytes]] = []
    ends = [*ENDS.values()]

    def script(wire: Wire) -> None:
        wire.accept()
        if len(said) == len(ends):  # the last one goes on
            wire.send(frame(TEXT, GOOD))
            while wire.receive()[0] != CLOSE:
                pass
            wire.send(frame(CLOSE, struct.pack("!H", 1000)))
            return
        messages = [mutated(rng, m, pool) if rng.random() < 0.4 else m for m in rng.choices(pool, k=MESSAGES)]
        said.append(messages)
        last, _ = ends[len(said) - 1]
        with suppress(OSError):  # the client may be gone before the last byte
            wire.send(b"".join(on_the_wire(rng, message) for message in messages) + last)
            wire.connection.shutdown(socket.SHUT_WR)
            wire.until_closed()

    with wired(script, clients=len(ends) + 1) as url:
        rig.write({"bybit": ["BTCUSDT"]}, {"bybit": {"ws_url": url}}, websocket={"initial_retry_delay_secs": 0.01})
        wiring = rig.wiring()
        monkeypatch.setattr(wiring, "admit", lambda venue, pace: 0.0)
        monkeypatch.setattr("app.pipeline.assembly.unlisted", lambda stream, budget: {})
        with Collecting(wiring, STREAM) as collecting:
            progress = until(lambda: collecting.runners.get(STREAM), "a runner").progress
            until(lambda: progress.frames > MESSAGES * len(ends), "the data of the last connection", 60)
            assert collecting.finish() == {STREAM: "stop"}

    codec = BatchCodec()
    found: dict[str, list[Batch]] = {}
    for element in wiring.buffer.head(STREAM, 1_000_000, 1 << 40):
        batch = codec.decode(element)
        found.setdefault(batch.epoch, []).append(batch)
    assert [next(b.end.reason for b in batches if b.end) for batches in found.values()] == [
        *(reason for _, reason in ends), "stop",
    ]  # fmt: skip
    for name, messages, batches in zip(ENDS, said, found.values(), strict=False):
        assert told(batches) == alone(wiring, messages, ENDS[name][0]), f"{name}, COLLECTOR_TEST_SEED={SEED}"
    assert told([*found.values()][-1]) == alone(wiring, [GOOD], b"")
