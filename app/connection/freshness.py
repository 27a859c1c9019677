"""Is a feed alive, judged by its own rhythm? Pure.

A feed's usual interval outlives its connection: a market that trades once an hour is not restarted for nothing every
minute, and a feed that ticks ten times a second is missed within the configured timeout.
"""

from __future__ import annotations

#: Silent for so many of its usual intervals a feed is quiet, and for so many it is stale (or after its timeout, if longer).
QUIET_INTERVALS = 5
STALE_INTERVALS = 20
#: A feed is not called quiet before this, whatever its rhythm.
QUIET_AT_LEAST_S = 2.0


class Rhythm:
    """The usual interval of one feed, over all its connections in this process."""

    __slots__ = ("interval_s", "last_s", "restarted", "timeout_s")

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        #: A moving mean of the seconds between two events; None before the second event ever.
        self.interval_s: float | None = None
        #: Monotonic second of the last event; None before the first.
        self.last_s: float | None = None
        #: A connection was opened anew for this silence; a second one would not help.
        self.restarted = False

    def beat(self, now_s: float) -> None:
        """Data came. An outage teaches little: a silence counts at most as long as it takes to be called stale."""
        if self.last_s is not None:
            since_s = min(now_s - self.last_s, self.stale_after_s())
            known = self.interval_s
            self.interval_s = since_s if known is None else known + (since_s - known) / 16
        self.last_s = now_s
        self.restarted = False

    def quiet_after_s(self) -> float:
        """Silence after which the feed is quiet."""
        return max(QUIET_AT_LEAST_S, QUIET_INTERVALS * (self.interval_s or 0.0))

    def stale_after_s(self) -> float:
        """Silence after which the feed is stale."""
        return max(self.timeout_s, STALE_INTERVALS * (self.interval_s or 0.0))

    def may_restart(self) -> bool:
        """Whether a new connection may help: it has a rhythm, and none was opened for this silence yet."""
        return self.interval_s is not None and not self.restarted
