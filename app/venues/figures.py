"""Integers as decimal text, the way each venue writes its numbers.

A price or size is an integer of 10**-decimals. Each function here returns a writer for one such scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

Writer = Callable[[int], str]


def padded(decimals: int, shown: int) -> Writer:
    """Always `shown` digits after the point: 7674519 of 2 decimals shown as 8 is 76745.19000000."""
    scale, zeros = 10**decimals, "0" * (shown - decimals)

    def write(value: int) -> str:
        whole, part = divmod(value, scale)
        return f"{whole}.{part:0{decimals}d}{zeros}"

    return write


def trimmed(decimals: int) -> Writer:
    """As short as it goes: 77140.50 is 77140.5, and 77140.00 is 77140."""
    scale = 10**decimals

    def write(value: int) -> str:
        whole, part = divmod(value, scale)
        return f"{whole}.{part:0{decimals}d}".rstrip("0") if part else str(whole)

    return write


def number(decimals: int) -> Writer:
    """A JSON number as a float prints: 127.0, 280460.37885666 and, below 0.0001, 8.428e-05."""
    scale = 10**decimals

    def write(value: int) -> str:
        return repr(value / scale)

    return write


def pairs(levels: Iterable[tuple[int, int]], price: Writer, size: Writer) -> str:
    """Levels as the inside of a JSON array of [price, size] texts."""
    return ",".join([f'["{price(p)}","{size(s)}"]' for p, s in levels])


def rfc3339(time_us: int) -> str:
    """UTC with microseconds, such as 2026-09-30T02:03:13.357814Z."""
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"


def whole(text: str | None, default: int, low: int, high: int) -> int | None:
    """A number of a query, `default` where there is none; None: not an integer from `low` to `high`."""
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 20:
        return None
    return int(text) if low <= int(text) <= high else None
