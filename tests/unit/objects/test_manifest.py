from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.objects.manifest import EpochSpan, GapRecord, LossRecord, Manifest, NumberRange, decode, encode

EPOCH = "0f" * 16
MANIFEST = Manifest(
    key="okx/BTC-USDT/orderbook/2026-03-01/1772323200000.parquet",
    exchange="okx",
    symbol="BTC-USDT",
    data_type="orderbook",
    segment=17,
    data_dir="6f1c9f0e-3d0b-4c58-9f5f-0d0a52a7f6a1",
    opened_us=1_772_323_200_000_000,
    sealed_us=1_772_326_800_000_123,
    rows=2,
    size_bytes=4321,
    sha256="ab" * 32,
    first_id="10-12",
    last_id="12-15",
    first_collector_us=1_772_323_200_000_500,
    last_collector_us=1_772_323_200_100_500,
    first_exchange_us=1_772_323_200_000_000,
    last_exchange_us=1_772_323_200_100_000,
    clock_offset_us=-40,
    ranges=(NumberRange(epoch=EPOCH, first=1, last=3, stored=2, duplicates=1),),
    epochs=(EpochSpan(epoch=EPOCH, opened_us=1_772_323_199_000_000),),
    gaps=(
        GapRecord(epoch=EPOCH, number=3, from_id="13", to_id="14", size=None, before_us=1, after_us=2, cause="venue"),
    ),
    losses=(LossRecord(epoch=EPOCH, first=4, last=9, count=6, start_us=3, end_us=4, cause="spool_full"),),
    quarantined=1,
    collector_version="0.1.0",
    pyarrow_version="26.0.1",
)


def test_a_manifest_reads_as_plain_json_with_sorted_keys_and_a_newline() -> None:
    text = encode(MANIFEST)
    parsed = json.loads(text)
    assert list(parsed) == sorted(parsed)
    assert text == json.dumps(parsed, indent=2, ensure_ascii=False).encode() + b"\n"
    assert parsed["format"] == 1
    assert parsed["first_exchange_us"] == 1_772_323_200_000_000
    assert parsed["ranges"] == [
        {
            "conflicts": 0,
            "duplicates": 1,
            "epoch": EPOCH,
            "first": 1,
            "first_id": None,
            "first_us": None,
            "last": 3,
            "last_id": None,
            "last_us": None,
            "quarantined": 0,
            "stored": 2,
        }
    ]
    assert parsed["gaps"][0]["size"] is None


def test_the_fields_of_a_manifest_only_ever_grow() -> None:
    assert sorted(json.loads(encode(MANIFEST))) == [
        "checks",
        "clock_offset_us",
        "clock_offsets",
        "collector_version",
        "completeness",
        "completeness_reasons",
        "data_dir",
        "data_type",
        "duplicates",
        "epochs",
        "exchange",
        "first_collector_us",
        "first_exchange_us",
        "first_id",
        "format",
        "gaps",
        "ids",
        "key",
        "last_collector_us",
        "last_exchange_us",
        "last_id",
        "losses",
        "opened_us",
        "pyarrow_version",
        "quarantined",
        "ranges",
        "repairs",
        "rows",
        "sealed_us",
        "segment",
        "server",
        "sha256",
        "size_bytes",
        "symbol",
    ]


def test_a_manifest_comes_back_as_it_was() -> None:
    assert decode(encode(MANIFEST)) == MANIFEST


INTS = st.integers(-(2**63), 2**63 - 1)
RANGES = st.builds(NumberRange, epoch=st.text(), first=INTS, last=INTS, stored=INTS, duplicates=INTS)
GAPS = st.builds(
    GapRecord,
    epoch=st.text(),
    number=INTS,
    from_id=st.text(),
    to_id=st.text(),
    size=st.none() | INTS,
    before_us=INTS,
    after_us=INTS,
    cause=st.text(),
)


@given(st.text(), st.none() | INTS, st.lists(RANGES, max_size=3), st.lists(GAPS, max_size=3))
def test_every_manifest_comes_back_and_equal_ones_have_equal_bytes(
    first_id: str, offset_us: int | None, ranges: list[NumberRange], gaps: list[GapRecord]
) -> None:
    manifest = msgspec.structs.replace(
        MANIFEST, first_id=first_id, clock_offset_us=offset_us, ranges=tuple(ranges), gaps=tuple(gaps)
    )
    text = encode(manifest)
    assert decode(text) == manifest
    assert encode(decode(text)) == text


def test_a_field_of_a_newer_collector_is_passed_over() -> None:
    parsed = json.loads(encode(MANIFEST)) | {"of_tomorrow": [1, 2]}
    assert decode(json.dumps(parsed).encode()) == MANIFEST


def test_a_format_of_the_future_is_refused() -> None:
    parsed = json.loads(encode(MANIFEST)) | {"format": 2}
    with pytest.raises(ValueError, match="manifest of format 2; this Collector reads format 1"):
        decode(json.dumps(parsed).encode())


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"PAR1", b'{"format": "1"}', b"\xff\xfe"])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a manifest"):
        decode(text)
