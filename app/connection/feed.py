"""The state of one (symbol, feed) on one connection, with since when and why."""

from __future__ import annotations

from enum import Enum

from app.connection.freshness import Rhythm


class FeedState(str, Enum):
    SUBSCRIBING = "subscribing"
    LIVE = "live"
    #: Silent for several of its usual intervals: worth a look, not an alarm.
    QUIET = "quiet"
    #: Silent for longer than its timeout and its rhythm explain.
    STALE = "stale"
    #: Stale, and the venue no longer lists the symbol as open for trading.
    HALTED = "halted"
    #: The venue refused this feed; the others go on.
    REJECTED = "rejected"


class FeedStatus:
    """What is known of one (symbol, feed) on this connection."""

    __slots__ = ("last_data_s", "resubscribed", "retries", "retry_s", "rhythm", "since_us", "state", "why")

    def __init__(self, now_s: float, now_us: int, rhythm: Rhythm) -> None:
        self.state = FeedState.SUBSCRIBING
        self.since_us = now_us
        self.why = ""
        #: Monotonic second of the last data, or of the opening.
        self.last_data_s = now_s
        self.rhythm = rhythm
        self.resubscribed = False
        #: A refused or halted feed is asked for again, slowly: when, and how often it was.
        self.retry_s = 0.0
        self.retries = 0

    def change(self, state: FeedState, now_us: int, why: str = "") -> None:
        self.state, self.since_us, self.why = state, now_us, why

    @property
    def given_up(self) -> bool:
        """Only asked for again slowly: silence is what is expected of it."""
        return self.state in (FeedState.REJECTED, FeedState.HALTED)
