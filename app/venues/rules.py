"""When a fault strikes. Pure: time and seed are given."""

from __future__ import annotations

from random import Random

from app.venues.faults import Fault


class Rule:
    """A fault that stands. The same seed and the same frames of a connection give the same draws."""

    def __init__(self, number: int, fault: Fault, seed: int, now_us: int) -> None:
        self.number, self.fault, self.seed = number, fault, seed
        self.name, self.params, limits = fault.name, fault.params, fault.limits
        self.venue, self.feed = limits.get("venue"), limits.get("feed")
        self.connection: int | None = limits.get("connection")
        self.symbol = str(limits["symbol"]).lower() if "symbol" in limits else None
        self.probability: float = limits.get("probability", 1.0)
        self.skip: int = limits.get("skip", 0)
        once = not (fault.kind.lasting or "for_s" in limits or "probability" in limits)
        #: How often it may strike; 0: no end.
        self.count: int = limits.get("count", 1 if once else 0)
        self.from_us = now_us + int(limits.get("after_s", 0) * 1e6)
        self.until_us = self.from_us + int(limits["for_s"] * 1e6) if "for_s" in limits else None
        #: How often it has struck.
        self.struck = 0
        self._randoms: dict[str, Random] = {}

    def awake(self, now_us: int) -> bool:
        """Whether its time is now, and it may still strike."""
        if now_us < self.from_us or (self.count and self.struck >= self.count):
            return False
        return self.until_us is None or now_us < self.until_us

    def fits(
        self, venue: str, symbol: str | None = None, feed: str | None = None, connection: int | None = None
    ) -> bool:
        """Whether it is about this; None: not known here, and then not asked about."""
        return (
            self.venue in (None, venue)
            and (self.symbol is None or symbol is None or self.symbol == symbol.lower())
            and (self.feed is None or feed is None or self.feed == feed)
            and (self.connection is None or connection is None or self.connection == connection)
        )

    def strikes(self, subject: str) -> bool:
        """Whether it strikes at this opportunity; `subject` names the series of opportunities that share their draws."""
        if self.skip:
            self.skip -= 1
            return False
        if self.probability < 1 and self.random(subject).random() >= self.probability:
            return False
        self.struck += 1
        return True

    def random(self, subject: str) -> Random:
        """The randomness of this rule for one subject."""
        found = self._randoms.get(subject)
        if found is None:
            found = self._randoms[subject] = Random(f"{self.seed}:rule {self.number}:{subject}")
        return found
