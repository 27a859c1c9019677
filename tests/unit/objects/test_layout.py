from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.objects.layout import (
    MAX_KEY_BYTES,
    ObjectKey,
    checked_key,
    described_key,
    is_key,
    manifest_key,
    object_key,
    parse_key,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(lambda name: ".." not in name)
DATA_TYPES = st.sampled_from(["orderbook", "trade"])
#: 1970 to 9999.
TIMES_US = st.integers(0, 253_402_300_799_999_999)

ONE_SECOND_BEFORE_MIDNIGHT_US = 1_772_409_599_999_999  # 2026-03-01T23:59:59.999999Z


def test_a_key_names_exchange_symbol_data_type_day_and_opening() -> None:
    assert (
        object_key("binance", "btcusdt", "trade", 1_772_323_200_000_000)
        == "binance/btcusdt/trade/2026-03-01/1772323200000.parquet"
    )


def test_a_server_and_a_suffix_have_their_own_places() -> None:
    assert (
        object_key("okx", "BTC-USDT", "orderbook", 1_772_323_200_000_000, "tokyo-1", 2)
        == "okx/BTC-USDT/orderbook/tokyo-1/2026-03-01/1772323200000-2.parquet"
    )


def test_the_day_is_the_utc_day_of_the_opening() -> None:
    assert "/2026-03-01/" in object_key("upbit", "KRW-BTC", "trade", ONE_SECOND_BEFORE_MIDNIGHT_US)
    assert "/2026-03-02/" in object_key("upbit", "KRW-BTC", "trade", ONE_SECOND_BEFORE_MIDNIGHT_US + 1)


@given(NAMES, NAMES, DATA_TYPES, TIMES_US, st.none() | NAMES, st.integers(0, 10**6))
def test_every_key_is_parsed_back_to_what_it_was_made_of(
    exchange: str, symbol: str, data_type: str, opened_us: int, server: str | None, suffix: int
) -> None:
    key = object_key(exchange, symbol, data_type, opened_us, server, suffix)
    assert parse_key(key) == ObjectKey(exchange, symbol, data_type, opened_us // 1000, server, suffix)
    assert str(parse_key(key)) == key
    assert is_key(key)
    assert is_key(manifest_key(key))


@given(NAMES, NAMES, DATA_TYPES, TIMES_US.filter(lambda us: us >= 1000), st.none() | NAMES, st.integers(0, 9))
def test_two_different_openings_or_suffixes_never_share_a_key(
    exchange: str, symbol: str, data_type: str, opened_us: int, server: str | None, suffix: int
) -> None:
    key = object_key(exchange, symbol, data_type, opened_us, server, suffix)
    assert key != object_key(exchange, symbol, data_type, opened_us, server, suffix + 1)
    assert key != object_key(exchange, symbol, data_type, opened_us - 1000, server, suffix)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        "../x",
        "a/b",
        "a\\b",
        "a\0",
        "a\n",
        " a",
        "a b",
        "%2e%2e",
        "-a",
        ".a",
        "b\u202ea",
        "b\u0442c",
        "a" * 65,
    ],
)
@pytest.mark.parametrize("place", ["exchange", "symbol", "server"])
def test_a_name_that_could_leave_its_folder_is_refused_by_name(place: str, name: str) -> None:
    parts = {"exchange": "binance", "symbol": "btcusdt", "server": "tokyo", place: name}
    with pytest.raises(ValueError, match=f"^{place}.*{re.escape(repr(name))} cannot be part of a key: use 1 to 64"):
        object_key(parts["exchange"], parts["symbol"], "trade", 0, parts["server"])


def test_only_the_two_data_types_make_a_key() -> None:
    with pytest.raises(ValueError, match="data type 'trades' is not one of orderbook, trade"):
        object_key("binance", "btcusdt", "trades", 0)


def test_times_outside_the_calendar_are_refused() -> None:
    with pytest.raises(ValueError, match="before 1970"):
        object_key("binance", "btcusdt", "trade", -1)
    with pytest.raises(ValueError, match="after the year 9999"):
        object_key("binance", "btcusdt", "trade", 253_402_300_800_000_000)
    with pytest.raises(ValueError, match="suffix -1 is negative"):
        object_key("binance", "btcusdt", "trade", 0, suffix=-1)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "binance/btcusdt/trade/1772323200000.parquet",
        "binance/btcusdt/trade/2026-03-02/1772323200000.parquet",
        "binance/btcusdt/trade/2026-03-01/01772323200000.parquet",
        "binance/btcusdt/trade/2026-03-01/1772323200000-0.parquet",
        "binance/btcusdt/trade/2026-03-01/1772323200000-02.parquet",
        "binance/btcusdt/trade/2026-03-01/1772323200000.parquet\n",
        "binance/btcusdt/trade/2026-03-01/_1772323200000.json",
        "binance/btcusdt/trade/2026-03-01/\u0661772323200000.parquet",
        "/binance/btcusdt/trade/2026-03-01/1772323200000.parquet",
        "binance/../trade/2026-03-01/1772323200000.parquet",
        "binance/btcusdt/book/2026-03-01/1772323200000.parquet",
        "a/binance/btcusdt/trade/tokyo/2026-03-01/1772323200000.parquet",
    ],
)
def test_a_key_that_was_not_made_here_is_not_parsed(key: str) -> None:
    with pytest.raises(ValueError):
        parse_key(key)


@given(st.text())
def test_any_text_is_parsed_or_refused_with_value_error(text: str) -> None:
    try:
        parsed = parse_key(text)
    except ValueError:
        return
    assert str(parsed) == text


def test_a_manifest_lies_beside_its_object() -> None:
    assert manifest_key("a/b/trade/2026-03-01/1-2.parquet") == "a/b/trade/2026-03-01/_1-2.json"
    with pytest.raises(ValueError, match=r"does not end in \.parquet"):
        manifest_key("a/b/trade/2026-03-01/_1.json")


def test_the_object_of_a_manifest_is_found_again() -> None:
    key = "a/b/trade/2026-03-01/1-2.parquet"
    assert described_key(manifest_key(key)) == key
    assert described_key(key) is None
    assert described_key("a/b/trade/2026-03-01/notes.json") is None


def test_a_key_longer_than_s3_allows_is_refused() -> None:
    longest = "/".join(["a" * 63] * 16)
    assert len(longest) == MAX_KEY_BYTES - 1
    assert checked_key(longest) == longest
    with pytest.raises(ValueError, match="cannot be a key"):
        checked_key(longest + "/a")
