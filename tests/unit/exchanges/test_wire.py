from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import FrameRejected
from app.exchanges.wire import DETAIL_CHARS, millis_us, parse, raw_text, rfc3339_us

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(msgspec.Struct):
    id: int


class Holder(msgspec.Struct):
    value: msgspec.Raw


ROW = msgspec.json.Decoder(Row)
HOLDER = msgspec.json.Decoder(Holder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not_json"),
        ("pong", "not_json"),
        ('{"id":1', "not_json"),
        ('{"id":1}x', "not_json"),
        ('{"id":1,"other":nul}', "not_json"),
        ('{"id":1,"other":"\ud800"}', "not_json"),
        ('{"id":"1"}', "unexpected_shape"),
        ('{"id":true}', "unexpected_shape"),
        ("{}", "unexpected_shape"),
        ("[1]", "unexpected_shape"),
        ('{"other":' + "[" * 100_000, "too_deep"),
        ('{"id":1,"other":' + '{"a":' * 100_000, "too_deep"),
    ],
)
def test_a_text_of_another_shape_is_rejected_with_a_constant_reason(text: str, reason: str) -> None:
    with pytest.raises(FrameRejected) as rejected:
        parse(ROW, text)
    assert rejected.value.reason == reason


def test_a_rejection_quotes_only_so_much_of_what_it_rejects() -> None:
    tagged = msgspec.json.Decoder(msgspec.defstruct("Tagged", [], tag_field="type", tag="known"))
    with pytest.raises(FrameRejected) as rejected:
        parse(tagged, '{"type":"' + "x" * 10_000 + '"}')
    assert len(rejected.value.detail) == DETAIL_CHARS


@settings(deadline=None)
@given(st.text() | st.binary())
def test_whatever_is_parsed_either_parses_or_is_rejected(text: str | bytes) -> None:
    try:
        parse(ROW, text)
    except FrameRejected as rejected:
        assert rejected.reason in ("not_json", "unexpected_shape")


def test_a_raw_value_keeps_its_spacing_key_order_and_number_text() -> None:
    text = '{ "z":1.50, "a" : [ 8.428e-05 ], "é":"\\u00e9" }'
    assert raw_text(parse(HOLDER, f'{{"value": {text} }}').value) == text


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("2026-09-30T02:03:13.313359Z", 1790733793313359),
        ("2026-09-30T02:03:13Z", 1790733793000000),
        ("2026-09-30T04:03:13.5+02:00", 1790733793500000),
        ("2026-09-30T02:03:13.313359987Z", 1790733793313359),
    ],
)
def test_an_rfc3339_time_becomes_microseconds(text: str, expected_us: int) -> None:
    assert rfc3339_us(text) == expected_us


@pytest.mark.parametrize(
    "text", [None, "", "0001-01-01T00:00:00.000000Z", "1970-01-01T00:00:00Z", "2026-09-30T02:03:13", "soon", "\ud800"]
)
def test_a_time_that_is_none_stays_none(text: str | None) -> None:
    assert rfc3339_us(text) is None


@settings(deadline=None)
@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_every_instant_is_told_in_every_zone(instant: datetime, zone: timezone) -> None:
    aware = instant.replace(tzinfo=zone)
    expected = (aware - EPOCH) // timedelta(microseconds=1)
    assert rfc3339_us(aware.isoformat()) == (expected if expected > 0 else None)


@settings(deadline=None)
@given(st.text())
def test_no_text_makes_the_reading_of_a_time_fail(text: str) -> None:
    us = rfc3339_us(text)
    assert us is None or us > 0


@pytest.mark.parametrize(
    ("value", "expected_us"),
    [
        (1790000000123, 1790000000123000),
        (1790000000123456, 1790000000123456),
        (1790000000123456789, 1790000000123456),
        ("1790000000123", 1790000000123000),
    ],
)
def test_the_size_of_a_time_tells_its_unit(value: int | str, expected_us: int) -> None:
    assert millis_us(value) == expected_us


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        -1,
        1790000000,
        2**63,
        10**400,
        "",
        "0",
        "1.79e12",
        "-1790000000123",
        "１７９００００００００００",
        "9" * 5000,
    ],
)
def test_a_number_that_is_no_time_stays_none(value: int | str | None) -> None:
    assert millis_us(value) is None


@settings(deadline=None)
@given(st.integers(10**14, 10**17 - 1))
def test_the_three_units_of_one_instant_agree(us: int) -> None:
    assert millis_us(us) == us
    assert millis_us(us // 1000) == us // 1000 * 1000
    assert millis_us(us * 1000) == (us if us * 1000 < 2**63 else None)
