"""What one stored row says of a book, the same for all venues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple, TypeVar

import msgspec

from app.books.book import Level

T = TypeVar("T")

#: `["84116.5", "0.01", ...]` as every venue but Coinbase Advanced and Upbit writes a level.
Pair = tuple[Decimal, Decimal]


class Row(NamedTuple):
    """A row of an object or a segment, in the order of its columns; exchange and symbol are the caller's."""

    exchange_sequence_id: str
    timestamp_collector: int
    timestamp_exchange: int | None
    data: str
    epoch: str


class Change(NamedTuple):
    """A snapshot (`whole`: it replaces the book) or sizes that changed (absolute; 0 removes)."""

    whole: bool
    bids: Sequence[Level]
    asks: Sequence[Level]
    #: A change with `follows` continues the one whose `last` is equal. Both None: this channel numbers nothing that could
    #: be missed.
    follows: int | None = None
    last: int | None = None
    #: `last` counts one by one, so that the size of a hole is known and what is older can be told.
    dense: bool = False
    #: A snapshot that was asked for: the first change after it need not begin where it ends, only reach over it.
    asked: bool = False
    #: By which a REST answer names the state after this change.
    number: int | None = None


class RestBook(NamedTuple):
    """A venue's answer to "what is the book?". `number` None: nothing in it says which change it includes."""

    number: int | None
    bids: Sequence[Level]
    asks: Sequence[Level]


class Venue(NamedTuple):
    """How one venue's rows and REST answers are read. Both readers raise ValueError with a sentence."""

    #: (data, symbol) -> what it says.
    read: Callable[[str, str], Change]
    #: symbol -> path and query below the venue's REST address; None: its answer could not be compared with the record.
    rest_path: Callable[[str], str] | None
    rest: Callable[[bytes], RestBook]
    #: Two states may bear one number: a difference at equal numbers then proves nothing.
    ambiguous: bool = False
    #: Snapshots are asked for over REST: changes that they do not include may have come before them.
    asks: bool = False


def decode(decoder: msgspec.json.Decoder[T], text: str | bytes) -> T:
    """What `decoder` makes of `text`. Raises: ValueError."""
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"not a book of this venue: {error}") from None


def unanswerable(body: bytes) -> RestBook:
    """For venues without a `rest_path`. Raises: ValueError."""
    raise ValueError("this venue's REST book cannot be compared")
