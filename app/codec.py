"""Batch <-> the bytes of one Redis list element (and of one spool record). Format version 1, docs/formats.md.

    "C" version | epoch 16 bytes | batch number u64 | events u32 | zstd(msgpack(Batch))

The first 26 bytes are the batch's identity: the acknowledge script compares them inside Redis without unpacking anything.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec
import zstandard

from app.model import FEEDS, Batch, runs

VERSION = 1
_HEADER = struct.Struct(">cB16sQI")
#: Bytes that say which batch it is and how many units it holds.
HEADER_BYTES = _HEADER.size
#: Bytes that name a batch for ever: magic, version, epoch, number.
IDENTITY_BYTES = _HEADER.size - 4
#: A batch holds at most what the memory queue of a stream holds and one frame; far above that it is not ours.
MAX_UNPACKED_BYTES = 512 * 1024 * 1024


_FEEDS = frozenset(FEEDS.values())


class ElementRejected(ValueError):
    """The bytes are not a batch of a version this code reads."""


class NewerFormat(ElementRejected):
    """The bytes are a batch that a newer version wrote: leave them where they are."""


class Header(NamedTuple):
    epoch: str
    number: int
    events: int


class BatchCodec:
    """Packs and unpacks batches. Holds a compressor, so each thread has its own."""

    def __init__(self) -> None:
        self._pack = msgspec.msgpack.Encoder().encode
        self._unpack = msgspec.msgpack.Decoder(Batch).decode
        # With a checksum: a bit that flips on its way must not decode as another price.
        self._compress = zstandard.ZstdCompressor(level=1, write_checksum=True).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def encode(self, batch: Batch) -> bytes:
        """The element of `batch`; its event count is the number of units (events and quarantined frames) inside."""
        units = len(batch.events) + len(batch.quarantined)
        header = _HEADER.pack(b"C", VERSION, bytes.fromhex(batch.epoch), batch.number, units)
        return header + self._compress(self._pack(batch))

    def decode(self, element: bytes) -> Batch:
        """The batch of an element. Raises: ElementRejected, also where the batch contradicts itself."""
        header(element)
        packed = element[_HEADER.size :]
        try:
            size = zstandard.frame_content_size(packed)
            if not 0 <= size <= MAX_UNPACKED_BYTES:
                raise ElementRejected(f"batch says it unpacks to {size} bytes")
            batch = self._unpack(self._decompress(packed))
        except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ElementRejected(f"not a batch: {error}") from error
        if fault := _contradiction(batch):
            raise ElementRejected(f"contradicts itself: {fault}")
        return batch


def _contradiction(batch: Batch) -> str:
    """What would make one batch stop a whole flush: units that its ranges do not name, or ranges without units."""
    if any(event.feed not in _FEEDS for event in batch.events):
        return f"a feed other than {sorted(_FEEDS)}"
    numbers = [(event.symbol, event.feed, event.number) for event in batch.events]
    numbers += [(frame.symbol, frame.feed, frame.number) for frame in batch.quarantined]
    return "" if set(runs(numbers)) == set(batch.ranges) else "its ranges are not those of its events"


def header(element: bytes) -> Header:
    """What the first 30 bytes say. Raises: ElementRejected."""
    if len(element) < _HEADER.size:
        raise ElementRejected(f"{len(element)} bytes are too few for a batch")
    magic, version, epoch, number, events = _HEADER.unpack_from(element)
    if magic != b"C":
        raise ElementRejected("not a batch: wrong first byte")
    if version != VERSION:
        fault = f"batch format {version}; this version reads {VERSION}: upgrade before you drain it"
        raise NewerFormat(fault) if version > VERSION else ElementRejected(fault)
    return Header(epoch.hex(), number, events)


def identity(element: bytes) -> bytes:
    """The bytes that name the batch."""
    return element[:IDENTITY_BYTES]


def events_in(element: bytes) -> int:
    """Units in the element as its header says; 0 where it is no batch."""
    try:
        return header(element).events
    except ElementRejected:
        return 0
