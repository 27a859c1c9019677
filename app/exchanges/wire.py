"""Pieces that several exchanges' wire formats share: parsing with one kind of failure, exact text, times.

Pure. Which fields a venue sends and what they mean stays in the venue's own module.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from app.errors import FrameRejected

T = TypeVar("T")

#: An id or a time of a venue: whatever is kept as a number fits 64 bits, and none is below 0.
Int64 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: A reason is shown to people and stored per frame, and parsers quote the venue's text in it: characters kept.
DETAIL_CHARS = 200


def parse(decoder: msgspec.json.Decoder[T], text: str | bytes | msgspec.Raw) -> T:
    """What `decoder` makes of `text`.

    Raises: FrameRejected, and nothing else whatever the text is: `not_json`, `unexpected_shape` (JSON, but without a
    needed field, or one of another type), `too_deep` (nested beyond the interpreter's recursion limit).
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise FrameRejected("unexpected_shape", str(error)[:DETAIL_CHARS]) from None
    except (msgspec.DecodeError, UnicodeError) as error:  # UnicodeError: half of a surrogate pair in a `str`
        raise FrameRejected("not_json", str(error)[:DETAIL_CHARS]) from None
    except RecursionError:
        raise FrameRejected("too_deep") from None


def raw_text(raw: msgspec.Raw) -> str:
    """The text of an unparsed value, byte for byte as it stood in the frame."""
    return str(raw, "utf-8")


def rfc3339_us(text: str | None) -> int | None:
    """Microseconds since the Unix epoch of an RFC 3339 time; digits beyond the microsecond are cut off.

    None where there is no time to tell: no text, no zone, not a time, or a placeholder before 1970 (Coinbase sends
    `0001-01-01T00:00:00.000000Z`). Such an event is real and its text is stored: its clock is no reason to refuse it.
    """
    if text is None:
        return None
    try:
        us = (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
    except (ValueError, TypeError, OverflowError):  # TypeError: a time without a zone is no instant
        return None
    return us if us > 0 else None


def millis_us(value: int | str | None) -> int | None:
    """Microseconds since the Unix epoch of a number that should be milliseconds, given as number or as digits.

    The size decides the unit, for venues switch: Binance on request (`timeUnit=MICROSECOND`), Upbit once by mistake.
    From 1973 on milliseconds have 12 to 14 digits, microseconds 15 to 17, nanoseconds 18 and 19 (to the year 2262).
    None for anything else: 0 and seconds are not the time of any event.
    """
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 19 else None
    if value is None or value < 10**11:
        return None
    if value < 10**14:
        return value * 1000
    if value < 10**17:
        return value
    return value // 1000 if value < 2**63 else None
