"""Keys of objects, made and taken apart. Pure.

`{exchange}/{symbol}/{data_type}[/{server}]/{YYYY-MM-DD}/{start_ms}[-{suffix}].parquet`, the manifest beside it as
`_{start_ms}[-{suffix}].json`: whatever reads a directory as a data set (pyarrow, pandas, Spark) passes over names that
begin with `_`. The day is the UTC day of `start_ms`: when the segment was opened, in ms since the Unix epoch.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec

from app.model import FEEDS

#: What exchange, symbol and server may be called: safe as a path, an S3 key, a Redis key and a metric label.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: S3's bound for a key, in bytes. Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
MAX_KEY_BYTES = 1024

_FILE = re.compile(r"([0-9]+)(?:-([0-9]+))?\.parquet")
_MANIFEST = re.compile(r"_[0-9]+(?:-[0-9]+)?\.json")
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ObjectKey(msgspec.Struct, frozen=True):
    """The parts of an object's key."""

    exchange: str
    symbol: str
    data_type: str
    start_ms: int
    server: str | None = None
    #: 0: none. Counts up from 1 where other bytes already stood under the key.
    suffix: int = 0

    def __str__(self) -> str:
        server = "" if self.server is None else f"/{self.server}"
        suffix = f"-{self.suffix}" if self.suffix else ""
        folder = f"{self.exchange}/{self.symbol}/{self.data_type}{server}/{_day(self.start_ms)}"
        return f"{folder}/{self.start_ms}{suffix}.parquet"


def object_key(
    exchange: str, symbol: str, data_type: str, opened_us: int, server: str | None = None, suffix: int = 0
) -> str:
    """The key of one market and data type of the segment opened at `opened_us`.

    Raises: ValueError, with a sentence that names the part, for anything that could leave its folder.
    """
    for what, name in (("exchange", exchange), ("symbol", symbol), ("server name", server)):
        if name is not None:
            _check_name(what, name)
    if data_type not in FEEDS.values():
        raise ValueError(f"data type {data_type!r} is not one of {', '.join(FEEDS.values())}")
    if suffix < 0:
        raise ValueError(f"suffix {suffix} is negative")
    return str(ObjectKey(exchange, symbol, data_type, opened_us // 1000, server, suffix))


def parse_key(key: str) -> ObjectKey:
    """The parts of `key`. Raises: ValueError for a key that `object_key` does not make."""
    parts = key.split("/")
    file = _FILE.fullmatch(parts[-1])
    if file is None or len(parts) not in (5, 6):
        raise ValueError(f"{key!r} is not the key of an object")
    exchange, symbol, data_type = parts[:3]
    server = parts[3] if len(parts) == 6 else None
    start_ms, suffix = int(file[1]), int(file[2] or 0)
    # Made again and compared: one spelling per object, so neither another day nor a leading zero passes.
    if object_key(exchange, symbol, data_type, start_ms * 1000, server, suffix) != key:
        raise ValueError(f"{key!r} is not the key of an object in its one spelling")
    return ObjectKey(exchange, symbol, data_type, start_ms, server, suffix)


def manifest_key(key: str) -> str:
    """The key of the manifest beside the object `key`. Raises: ValueError where `key` is no object's."""
    if not key.endswith(".parquet"):
        raise ValueError(f"{key!r} is not the key of an object: it does not end in .parquet")
    folder, _, name = key.rpartition("/")
    return f"{folder}/_{name.removesuffix('.parquet')}.json"


def described_key(key: str) -> str | None:
    """The key of the object whose manifest `key` would be; None where it is no manifest's."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{name[1:].removesuffix('.json')}.parquet" if _MANIFEST.fullmatch(name) else None


def is_key(key: str) -> bool:
    """Whether a store may take `key` at all: relative, every part a name, no longer than S3 allows."""
    folder, _, name = key.rpartition("/")
    parts = folder.split("/") if _MANIFEST.fullmatch(name) else key.split("/")
    return len(key) <= MAX_KEY_BYTES and all(_is_name(part) for part in parts)


def checked_key(key: str) -> str:
    """`key` itself. Raises: ValueError where it could lead outside a store's root."""
    if not is_key(key):
        raise ValueError(f"{key!r} cannot be a key: between slashes stand letters, digits and . _ - without '..'")
    return key


def _check_name(what: str, name: str) -> None:
    if not _is_name(name):
        raise ValueError(
            f"{what} {name!r} cannot be part of a key: use 1 to 64 letters, digits and . _ - "
            "that start with a letter or digit and have no '..'"
        )


def _is_name(part: str) -> bool:
    # fullmatch, because `$` would let a newline at the end pass.
    return NAME.fullmatch(part) is not None and ".." not in part


def _day(ms: int) -> str:
    if ms < 0:
        raise ValueError(f"{ms} ms is before 1970")
    try:
        return f"{_UNIX_EPOCH + timedelta(milliseconds=ms):%Y-%m-%d}"
    except OverflowError as error:
        raise ValueError(f"{ms} ms is after the year 9999") from error
