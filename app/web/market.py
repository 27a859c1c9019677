"""What is known of one market beside what it does this moment: gaps of the last hour, latency since counting began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.clock import monotonic_s, wall_us
from app.errors import CollectorError
from app.metrics import Series
from app.model import Market
from app.pipeline.gaps import states
from app.web.live import LiveMarket
from app.web.overview import GAPS_US, Overview
from app.wiring import Wiring

#: Gaps and histograms are looked at every so often, and so many of the newest gaps are told.
EVERY_S, MOST_GAPS = 5.0, 20
LATENCY = "collector_latency_exchange_to_collector_ms_bucket"


class MarketView:
    """One market for all who look at it. `live` is made anew when nobody looked for a while."""

    def __init__(self, wiring: Wiring, overview: Overview, market: Market) -> None:
        self._wiring, self._overview, self.market = wiring, overview, market
        self.live = LiveMarket(wiring, market)
        self._facts: dict[str, Any] = {}
        self._facts_s = -EVERY_S

    def document(self) -> dict[str, Any]:
        """See docs/dashboard.md. Raises: BufferUnavailable."""
        if not self.live.alive:
            self.live = LiveMarket(self._wiring, self.market)
        told = self.live.document()
        overview = self._overview.document()
        if monotonic_s() - self._facts_s >= EVERY_S:
            self._facts, self._facts_s = self._look(), monotonic_s()
        named = {"exchange": self.market.exchange, "symbol": self.market.symbol}
        here = [m for m in overview["markets"] if (m["exchange"], m["symbol"]) == (named["exchange"], named["symbol"])]
        feeds = here[0]["feeds"] if here else []
        return {"now_us": wall_us(), **named, "health": overview["health"], "feeds": feeds, **told, **self._facts}

    def _look(self) -> dict[str, Any]:
        return {"gaps": self._gaps(), "latency_counted": latency(self._wiring.tally.sums(), self.market)}

    def _gaps(self) -> list[dict[str, Any]] | None:
        """The newest first; None where the data directory is on another host or cannot be read."""
        wiring = self._wiring
        if not wiring.settings.database.path.exists():
            return None
        where, since_us = {"exchange": self.market.exchange, "symbol": self.market.symbol}, wall_us() - GAPS_US
        try:
            gaps = wiring.stored.records("gaps", since=("after_us", since_us), **where)
            repairs = wiring.stored.records("repairs", since=("found_us", since_us), **where) if gaps else []
        except (SQLAlchemyError, OSError, CollectorError):
            return None
        names = ("feed", "from_id", "to_id", "size", "before_us", "after_us", "cause", "state", "found", "detail")
        return [{name: gap[name] for name in names} for gap in states(gaps, repairs)[::-1][:MOST_GAPS]]


def latency(sums: Mapping[Series, float], market: Market) -> dict[str, dict[str, float | None]]:
    """Feed -> p50 and p99 of the histogram of all processes, milliseconds; without what nobody has counted."""
    histograms: dict[str, dict[float, float]] = {}
    for (name, labels), value in sums.items():
        if name == LATENCY:
            told = dict(labels)
            if (told["exchange"], told["symbol"]) == (market.exchange, market.symbol):
                histograms.setdefault(told["data_type"], {})[float(told["le"])] = value
    return {
        feed: {f"p{part}_ms": quantile(buckets, part / 100) for part in (50, 99)}
        for feed, buckets in sorted(histograms.items())
    }


def quantile(buckets: dict[float, float], part: float) -> float | None:
    """The value below which `part` of a histogram's events lie: `buckets` are cumulative counts by upper bound.

    Within a bucket they are taken to lie evenly; in the last one, its lower bound is all that is known.

    >>> quantile({1.0: 0, 5.0: 10, 10.0: 20, float("inf"): 20}, 0.5)
    5.0
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0
    if not total:
        return None
    below, before = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= part * total:
            if bound == float("inf"):
                return below
            return below + (bound - below) * (part * total - before) / (count - before or 1)
        below, before = bound, count
    return None
