from __future__ import annotations

import json
import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as Parsed
from websockets.streams import StreamReader

from app.venues.faults import VENUE_NAMES
from app.venues.spoiled import BINARY, DIGITS, KINDS, TEXT, bomb, head, padding, refusal, spoil

BOOK = '{"stream":"ethusdt@trade","data":{"e":"trade","t":1004,"p":"2700.10000000","m":true}}'


def spoiled(kind: str, seed: int = 1, text: str = BOOK, binary: bool = False) -> tuple[int, bytes]:
    return spoil(kind, text, binary, Random(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_randomness_spoils_the_same_way(kind: str) -> None:
    assert spoiled(kind) == spoiled(kind)
    assert spoiled(kind)[1] != BOOK.encode()


def test_each_kind_is_what_its_name_says() -> None:
    with pytest.raises(UnicodeDecodeError):
        spoiled("utf8")[1].decode()
    assert BOOK.startswith(spoiled("truncated")[1].decode())
    assert spoiled("empty") == (TEXT, b"")
    assert spoiled("bytes")[0] == BINARY
    with pytest.raises(json.JSONDecodeError):
        json.loads(spoiled("text")[1])
    with pytest.raises(RecursionError):
        json.loads(spoiled("nesting")[1])
    assert b"9" * DIGITS in spoiled("hugeint")[1]
    assert spoiled("nan")[1].decode() in (BOOK.replace("1004", "NaN"), BOOK.replace('"2700.10000000"', "NaN"))
    assert json.loads(spoiled("renamed")[1]).keys() == {"stream_v2", "data_v2"}
    assert spoiled("truncated", binary=True)[0] == BINARY


@given(text=st.text(max_size=40), kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 9))
def test_any_frame_can_be_spoiled(text: str, kind: str, seed: int) -> None:
    opcode, payload = spoiled(kind, seed, text)
    assert opcode in (TEXT, BINARY) and isinstance(payload, bytes)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_a_library_reads_the_head_of_a_frame(size: int) -> None:
    reader = StreamReader()
    reader.feed_data(head(BINARY, size) + b"x" * size)
    parsing = Parsed.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    assert done.value.value == Parsed(BINARY, b"x" * size)
    assert head(TEXT, 5, rsv1=True) == b"\xc1\x05"


@given(size=st.integers(0, 200_000))
def test_padding_has_exactly_the_size_asked_for(size: int) -> None:
    whole = b"".join(padding(size))
    assert len(whole) == size
    if size > 14:
        assert json.loads(whole) == {"padding": "0" * (size - 14)}


def test_a_bomb_inflates_to_its_size_by_the_rules_of_the_extension() -> None:
    packed = bomb(5_000_000)
    assert len(packed) < 10_000
    assert zlib.decompressobj(-15).decompress(packed + b"\x00\x00\xff\xff") == b"".join(padding(5_000_000))


@pytest.mark.parametrize("venue", VENUE_NAMES)
def test_a_refusal_is_json_except_at_the_edge(venue: str) -> None:
    for status in (418, 429, 451, 503):
        assert json.loads(refusal(venue, status, 1_790_000_000_000))
    assert refusal(venue, 403, 0).startswith(b"<html>")


def test_a_ban_says_until_when() -> None:
    assert b"IP banned until 1790000000000." in refusal("binance", 418, 1_790_000_000_000)
