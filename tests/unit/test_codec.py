"""Batch <-> bytes: nothing changes on the way, and nothing but a batch is taken for one."""

from __future__ import annotations

import struct

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from app.codec import (
    IDENTITY_BYTES,
    MAX_UNPACKED_BYTES,
    BatchCodec,
    ElementRejected,
    Header,
    events_in,
    header,
    identity,
)
from app.model import Batch, EpochEnd, Event, Gap, Loss, Quarantined, Range, runs
from tests.support.batches import EPOCH, batch, event, undecoded

CODEC = BatchCodec()
PREFIX = struct.Struct(">cB16sQI")

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
int64 = st.integers(-(2**63), 2**63 - 1)
number = st.integers(1, 2**63 - 1)
ranges = st.builds(Range, text, text, number, number)
batches = st.builds(
    Batch,
    stream=text,
    exchange=text,
    epoch=st.binary(min_size=16, max_size=16).map(bytes.hex),
    number=number,
    opened_us=int64,
    events=st.lists(
        st.builds(Event, text, st.sampled_from(["orderbook", "trade"]), number, text, int64, st.none() | int64, text),
        max_size=5,
    ).map(tuple),
    quarantined=st.lists(
        st.builds(Quarantined, text, text, number, int64, text, st.binary(max_size=40)), max_size=3
    ).map(tuple),
    losses=st.lists(
        st.builds(Loss, text, text, number, number, st.none() | number, int64, int64, text), max_size=3
    ).map(tuple),
    gaps=st.lists(
        st.builds(Gap, text, text, number, text, text, st.none() | number, int64, int64, text), max_size=3
    ).map(tuple),
    end=st.none() | st.builds(EpochEnd, int64, text, st.lists(ranges, max_size=3).map(tuple)),
).map(lambda batch: msgspec.structs.replace(batch, ranges=ranges_of(batch)))


def ranges_of(batch: Batch) -> tuple[Range, ...]:
    """The ranges that a batch of these units has."""
    return tuple(runs((unit.symbol, unit.feed, unit.number) for unit in (*batch.events, *batch.quarantined)))


def element(packed: bytes, *, magic: bytes = b"C", version: int = 1, compressor: object = None) -> bytes:
    """An element as another writer would make it."""
    compress = (compressor or zstandard.ZstdCompressor()).compress  # type: ignore[attr-defined]
    return PREFIX.pack(magic, version, bytes(16), 1, 0) + bytes(compress(packed))


@given(batches)
@settings(deadline=None)
def test_a_batch_comes_back_as_it_went(original: Batch) -> None:
    assert CODEC.decode(CODEC.encode(original)) == original


def test_a_batch_whose_ranges_are_not_those_of_its_events_is_refused() -> None:
    honest = batch(1, [event(1), event(2)])
    for wrong in (
        msgspec.structs.replace(honest, ranges=()),
        msgspec.structs.replace(honest, events=honest.events[:1]),
        msgspec.structs.replace(honest, events=(), ranges=honest.ranges),
    ):
        with pytest.raises(ElementRejected, match="its ranges are not those of its events"):
            CODEC.decode(CODEC.encode(wrong))


def test_a_batch_with_a_feed_of_another_world_is_refused() -> None:
    strange = Event("btcusdt", "funding", 1, "1", 1, None, "{}")
    with pytest.raises(ElementRejected, match="a feed other than"):
        CODEC.decode(CODEC.encode(batch(1, [strange])))


def test_a_flipped_bit_is_seen() -> None:
    packed = bytearray(CODEC.encode(batch(1, [event(1)])))
    packed[-1] ^= 1
    with pytest.raises(ElementRejected):
        CODEC.decode(bytes(packed))


@given(batches)
@settings(deadline=None)
def test_the_header_names_the_batch_without_unpacking_it(original: Batch) -> None:
    packed = CODEC.encode(original)
    units = len(original.events) + len(original.quarantined)
    assert header(packed) == Header(original.epoch, original.number, units)
    assert events_in(packed) == units
    assert identity(packed) == b"C\x01" + bytes.fromhex(original.epoch) + original.number.to_bytes(8, "big")


def test_the_identity_is_the_batch_and_not_its_content() -> None:
    one, same = CODEC.encode(batch(7, [event(1)])), CODEC.encode(batch(7, [event(1), event(2)]))
    assert one != same
    assert identity(one) == identity(same)
    others = [batch(8, [event(1)]), batch(7, [event(1)], epoch="0b" * 16)]
    assert {identity(one)}.isdisjoint(identity(CODEC.encode(other)) for other in others)


def test_the_format_of_an_element_stays_what_is_stored_today() -> None:
    packed = CODEC.encode(batch(0x0102, [event(1), undecoded(1)]))
    assert packed[:30] == b"C\x01" + b"\x0a" * 16 + b"\0\0\0\0\0\0\x01\x02" + b"\0\0\0\x02"
    assert IDENTITY_BYTES == 26
    assert msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed[30:])) == [
        "binance-0-orderbook.trade",
        "binance",
        EPOCH,
        258,
        1772323200000000,
        [["btcusdt", "trade", 1, 1], ["?", "?", 1, 1]],
        [["btcusdt", "trade", 1, "1", 1772323200000001, None, '{"t":1}']],
        [["?", "?", 1, 1772323200000001, "not_json", b"\xff\x00"]],
        [],
        [],
        None,
        [],
        "stream",
        [],
        [],
    ]


@pytest.mark.row("C7")
def test_a_batch_of_a_version_that_knew_no_kinds_repairs_and_checks_is_read() -> None:
    written = batch(2, [event(1)], end=None)
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(written))[:11]
    packed = zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(fields))
    assert CODEC.decode(PREFIX.pack(b"C", 1, bytes.fromhex(EPOCH), 2, 1) + packed) == written


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_garbage_is_rejected_and_counts_no_events(garbage: bytes) -> None:
    with pytest.raises(ElementRejected):
        CODEC.decode(garbage)
    with pytest.raises(ElementRejected):
        CODEC.decode(PREFIX.pack(b"C", 1, bytes(16), 1, 9) + garbage)


@given(batches, st.data())
@settings(deadline=None)
def test_a_damaged_batch_is_rejected_or_read_but_never_raises_anything_else(
    original: Batch, data: st.DataObject
) -> None:
    packed = bytearray(CODEC.encode(original))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    kept = bytes(packed[: data.draw(st.integers(0, len(packed)))])
    for damaged in (bytes(packed), kept):
        try:
            assert isinstance(CODEC.decode(damaged), Batch)
        except ElementRejected:
            assert 0 <= events_in(damaged) < 2**32


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"", id="nothing inside"),
        pytest.param(msgspec.msgpack.encode({"stream": "s"}), id="a map"),
        pytest.param(msgspec.msgpack.encode(["s", "e", "0a", "not a number", 1]), id="a field of another type"),
        pytest.param(msgspec.msgpack.encode(["s", "e", "0a", 1]), id="a field too few"),
        pytest.param(b"\x95\xa1\xff\xa1e\xa20a\x01\x01", id="text that is not UTF-8"),
        pytest.param(
            msgspec.msgpack.encode(batch(1, [])).replace(b"\x9b", b"\x9c", 1) + b"\x91" * 200_000 + b"\xc0",
            id="nested without end",
        ),
    ],
)
def test_what_is_no_batch_inside_is_rejected(packed: bytes) -> None:
    with pytest.raises(ElementRejected):
        CODEC.decode(element(packed))


@pytest.mark.row("C7")
def test_a_newer_version_is_refused_with_the_remedy() -> None:
    newer = element(msgspec.msgpack.encode(batch(1, [])), version=2)
    with pytest.raises(ElementRejected, match="batch format 2; this version reads 1: upgrade before you drain it"):
        CODEC.decode(newer)
    assert events_in(newer) == 0


def test_a_batch_that_says_it_is_immense_is_rejected_before_anything_is_unpacked() -> None:
    # A frame header with an 8-byte content size, then no block at all.
    bomb = b"\x28\xb5\x2f\xfd" + bytes([0b1110_0000]) + (MAX_UNPACKED_BYTES + 1).to_bytes(8, "little")
    with pytest.raises(ElementRejected, match=f"unpacks to {MAX_UNPACKED_BYTES + 1} bytes"):
        CODEC.decode(PREFIX.pack(b"C", 1, bytes(16), 1, 0) + bomb)


def test_a_batch_that_does_not_say_how_large_it_is_is_rejected() -> None:
    silent = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(ElementRejected):
        CODEC.decode(element(msgspec.msgpack.encode(batch(1, [])), compressor=silent))
