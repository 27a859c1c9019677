"""What a venue's REST can still tell of trades that never came: which question to ask, and what the answer means. Pure.

A `History` is given the two trades on either side of what is missing. It says what to ask first, reads each answer and
says what to ask next. Nothing here knows a socket, a clock or a budget: app/pipeline/rest.py asks, and paces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from app.errors import FrameRejected
from app.exchanges.wire import DETAIL_CHARS

#: A trade further from its neighbours than this is not of this market's series: `rest_url` is that of another exchange.
STRANGE_US = 86_400 * 1_000_000


class Between(msgspec.Struct, frozen=True):
    """Trades after `older_id` and before `newer_id` are wanted; both are stored. Times are when these were received."""

    #: As the venue spells it where frames are delivered (`Exchange.delivered`).
    symbol: str
    older_id: str
    newer_id: str
    older_us: int
    newer_us: int


class Ask(msgspec.Struct, frozen=True):
    """One GET below `rest_url`. `at` and `way` are what the history itself needs to read the answer."""

    path: str
    at: int = 0
    way: str = ""


class Past(msgspec.Struct, frozen=True, gc=False):
    """A trade of the past, standing for the ids `first`..`last` (equal but for an aggregate); both 0 where ids do not count."""

    sequence_id: str
    exchange_us: int | None
    #: The venue's own text of this trade.
    data: str
    first: int = 0
    last: int = 0


class Page(msgspec.Struct, frozen=True):
    """One answer: trades in any order, of which some may lie outside, and what to ask next."""

    trades: tuple[Past, ...] = ()
    next: Ask | None = None
    #: With this page the answers cover everything from `older_id` to `newer_id`.
    reached: bool = False
    #: Why there is no next question although nothing was reached.
    words: str = ""


class Refused(msgspec.Struct, frozen=True):
    """The venue did not answer the question. `gone`: asking again is of no use."""

    words: str
    gone: bool = False
    #: It answered "too many requests" in a way of its own: nobody asks for so long.
    stay_away_s: float = 0.0


class History(ABC):
    """One venue's past trades."""

    #: How far back it goes, in words.
    reach: ClassVar[str]

    @abstractmethod
    def first(self, wanted: Between, now_us: int) -> Ask:
        """The first question."""

    @abstractmethod
    def read(self, wanted: Between, ask: Ask, status: int, body: bytes, now_us: int) -> Page | Refused:
        """What the answer to `ask` says; `status` is neither 429, 418 nor of the 5xx.

        Raises: FrameRejected where the body is not what the venue documents.
        """


#: Statuses that a venue (or what stands before it) gives to an address that it does not serve.
NOT_SERVED = (403, 451)


def refusal(status: int, words: str, *, gone: bool = False) -> Refused:
    """A refusal in the venue's words; one for the place we ask from is named, and may end."""
    if status in NOT_SERVED:
        return Refused(f"HTTP {status}: it does not serve this place; set [exchanges.<name>] rest_url or proxy")
    return Refused(f"HTTP {status}: {words}"[:DETAIL_CHARS], gone)


def of_this_market(wanted: Between, trades: Sequence[Past]) -> tuple[Past, ...]:
    """`trades`, all of them. Raises: FrameRejected where the time of one says that they are of another series."""
    for trade in trades:
        at_us = trade.exchange_us
        if at_us is not None and not wanted.older_us - STRANGE_US <= at_us <= wanted.newer_us + STRANGE_US:
            raise FrameRejected(
                "unexpected_time", f"trade {trade.sequence_id} is days away: is rest_url that of another exchange?"
            )
    return tuple(trades)


def down_to(wanted: Between, trades: tuple[Past, ...], ask: Ask, following: Ask | None, reach: str) -> Page:
    """A page of counted trades that began below `ask.at`; `following`: what to ask if it does not reach far enough."""
    if not trades:
        return Page(words=f"the venue has no older trades ({reach})")
    oldest = min(trade.first for trade in trades)
    if oldest <= int(wanted.older_id) + 1:
        return Page(trades, reached=True)
    if oldest >= ask.at or following is None:
        return Page(trades, words="its pages lead no further")
    return Page(trades, following)
