"""The overview as one document: every market and feed, the stations from venue to store, what is troubled, what ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.buffer.events import Depth
from app.clock import monotonic_s, wall_us
from app.codec import BatchCodec, ElementRejected
from app.errors import CollectorError
from app.metrics import Series
from app.pipeline.gaps import closed, states
from app.store.ledger import OPEN, SEALED, SEALING, VERIFIED
from app.web.health import health
from app.wiring import Wiring

#: A document serves everybody who asks within this.
FRESH_S = 0.9
#: Ledger and segments are looked at every so often.
LEDGER_EVERY_S = 5.0
#: Rates are over this time; those of the archive, which works by segments, over more.
RATE_S, ARCHIVE_RATE_S = 30.0, 900.0
#: Gaps are those seen within this.
GAPS_US = 3600 * 1_000_000
#: Ends of connections that are told.
MOST_ENDS = 12

#: Name in the document -> counter of app/metrics.py, of which all series are added up.
SUMS = {
    "received": "collector_messages_received_total",
    "stored": "collector_messages_stored_total",
    "duplicates": "collector_messages_duplicate_total",
    "quarantined": "collector_messages_quarantined_total",
    "lost": "collector_messages_lost_total",
    "replayed": "collector_messages_replayed_total",
}


class Rate:
    """Units a second of a count that grows, over the last `over_s`; None before a second look. A fall is a new beginning."""

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._seen: deque[tuple[float, float]] = deque()

    def __call__(self, now_s: float, count: float) -> float | None:
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now_s, count))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= self._over_s:
            self._seen.popleft()
        first_s, first = self._seen[0]
        return round((count - first) / (now_s - first_s), 3) if now_s > first_s else None


class Overview:
    """Keep it: rates are differences between looks."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._lock = threading.Lock()
        self._codec = BatchCodec()
        self._begun_s = monotonic_s()
        self._document: dict[str, Any] = {}
        self._made_s = -FRESH_S
        self._ledger: dict[str, Any] = {}
        self._ledger_s = -LEDGER_EVERY_S
        self._rates = {name: Rate(RATE_S) for name in ("venue", "stream", "redis")}
        self._rates |= {name: Rate(ARCHIVE_RATE_S) for name in ("segment", "object")}

    def document(self) -> dict[str, Any]:
        """See docs/dashboard.md. Raises: BufferUnavailable."""
        with self._lock:
            if monotonic_s() - self._made_s >= FRESH_S:
                self._document = self._look()
                self._made_s = monotonic_s()
            return self._document

    def _look(self) -> dict[str, Any]:
        wiring, now_us, now_s = self._wiring, wall_us(), monotonic_s()
        # At one moment, or rates would be of two: how many came, and how many of these wait.
        board, depths = wiring.board.states(list(wiring.streams)), wiring.buffer.depths()
        troubles = wiring.board.troubles()
        if now_s - self._ledger_s >= LEDGER_EVERY_S:
            self._ledger, self._ledger_s = self._look_at_ledger(now_us), now_s
        status = health(wiring, now_s - self._begun_s)[0]
        status.pop("streams", None)
        return {
            "now_us": now_us,
            "health": status,
            "markets": self._markets(board),
            "arrows": self._arrows(board, depths, now_us, now_s),
            "troubles": [{"station": station, **told} for station, told in troubles.items()],
            "disconnects": _disconnects(board),
            "sums": _sums(wiring.tally.sums()),
            "ledger": self._ledger["told"],
        }

    def _markets(self, board: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Every market of the plan, with its feeds; one that nobody has is `down`."""
        gaps = self._ledger["gaps"]
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for name, stream in sorted(self._wiring.streams.items()):
            state = board.get(name)
            feeds = {(feed["symbol"], feed["feed"]): feed for feed in state["feeds"]} if state else {}
            for symbol in stream.subscription.symbols:
                market = found.setdefault(
                    (stream.exchange, symbol), {"exchange": stream.exchange, "symbol": symbol, "feeds": []}
                )
                for feed in stream.subscription.feeds:
                    told = feeds.get((symbol, feed), {})
                    market["feeds"].append(
                        {
                            "feed": feed,
                            "state": told.get("state") or ("subscribing" if state else "down"),
                            "since_us": told.get("since_us"),
                            "age_s": told.get("age_s"),
                            "interval_s": told.get("interval_s"),
                            "rate_per_s": _rhythm(told),
                            "gaps_open": None if gaps is None else gaps.get((stream.exchange, symbol, feed), 0),
                            "why": told.get("why") or (state["why"] if state else "no stream worker has it"),
                            "stream": name,
                            "connection": state["connection"] if state else "down",
                        }
                    )
        return [found[key] for key in sorted(found)]

    def _arrows(
        self, board: Mapping[str, Mapping[str, Any]], depths: Sequence[Depth], now_us: int, now_s: float
    ) -> list[dict[str, Any]]:
        """What goes from each station to the next: how fast, what waits before it, and how old that is."""
        received = sum(state.get("events", 0) for state in board.values())
        queued = sum(state.get("queued", 0) for state in board.values())
        last_us = max((state.get("last_data_us") or 0 for state in board.values()), default=0)
        waiting = sum(depth.events for depth in depths)
        up = sum(state["connection"] == "open" for state in board.values())
        ledger = self._ledger["told"]
        archived = ledger["rows_verified"] if ledger else None
        arrow = _arrow
        return [
            arrow("venue", "stream", self._rates["venue"](now_s, received), "events",
                  len(self._wiring.streams) - up, "connections not open",
                  (now_us - last_us) / 1e6 if last_us else None, "since the last data"),
            arrow("stream", "redis", self._rates["stream"](now_s, max(0, received - queued)), "events",
                  queued, "events in memory", None, ""),
            arrow("redis", "segment", self._rates["redis"](now_s, max(0, received - queued - waiting)), "events",
                  waiting, "events in lists", self._oldest_s([d.stream for d in depths if d.batches], now_us),
                  "oldest event that is in no segment"),
            arrow("segment", "object", None if archived is None else self._rates["segment"](now_s, archived), "rows",
                  ledger["segments_waiting"] if ledger else None, "sealed segments",
                  (now_us - ledger["oldest_sealed_us"]) / 1e6 if ledger and ledger["oldest_sealed_us"] else None,
                  "oldest segment that is not archived"),
            arrow("object", "store",
                  None if ledger is None else self._rates["object"](now_s, ledger["objects_verified"]), "objects",
                  ledger["objects_unverified"] if ledger else None, "objects not proved", None, ""),
        ]  # fmt: skip

    def _oldest_s(self, streams: list[str], now_us: int) -> float | None:
        """Age of the oldest event at the head of a list; None where nothing waits."""
        received = []
        for stream in streams:
            for element in self._wiring.buffer.head(stream, 1, 1):
                try:
                    received += [event.received_us for event in self._codec.decode(element).events[:1]]
                except ElementRejected:  # the flush quarantines it
                    continue
        return max(0.0, (now_us - min(received)) / 1e6) if received else None

    def _look_at_ledger(self, now_us: int) -> dict[str, Any]:
        """`told`: segments and objects, and `gaps` by feed; None where the data directory is elsewhere or cannot be read."""
        wiring = self._wiring
        if not wiring.settings.database.path.exists():
            return {"told": None, "gaps": None}
        try:
            by_state, verified, rows = wiring.ledger.totals()
            sealed = wiring.ledger.segments(SEALED)
            objects = [
                entry for segment in sealed for entry in wiring.ledger.objects(segment.number)
            ]  # older ones are proved
            since_us = now_us - GAPS_US
            seen = wiring.stored.records("gaps", since=("after_us", since_us))
            repairs = wiring.stored.records("repairs", since=("found_us", since_us))
        except (SQLAlchemyError, OSError, CollectorError):
            return {"told": None, "gaps": None}
        gaps: dict[tuple[str, str, str], int] = {}
        for gap in states(seen, repairs):
            if not closed(gap):
                key = gap["exchange"], gap["symbol"], gap["feed"]
                gaps[key] = gaps.get(key, 0) + 1
        told = {
            "segments": by_state,
            "segments_open": by_state[OPEN],
            "segments_waiting": by_state[SEALING] + by_state[SEALED],
            "oldest_sealed_us": min((entry.sealed_us or now_us for entry in sealed), default=None),
            "objects_verified": verified,
            "objects_unverified": sum(entry.state != VERIFIED for entry in objects),
            "rows_verified": rows,
        }
        return {"told": told, "gaps": gaps}


def _arrow(
    start: str, end: str, rate: float | None, rate_unit: str, backlog: int | None, backlog_unit: str,
    age_s: float | None, age_of: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "from": start, "to": end, "rate_per_s": rate, "rate_unit": rate_unit, "backlog": backlog,
        "backlog_unit": backlog_unit, "age_s": None if age_s is None else round(max(0.0, age_s), 3), "age_of": age_of,
    }  # fmt: skip


def _rhythm(feed: Mapping[str, Any]) -> float | None:
    """Data a second by the feed's own rhythm, and less while it is silent for longer."""
    interval_s: float | None = feed.get("interval_s")
    age_s: float | None = feed.get("age_s")
    return round(1 / max(interval_s, age_s), 3) if interval_s and age_s is not None else None


def _disconnects(board: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last ends of connections, the newest first, in the venue's words where it said any."""
    ends = [
        {"stream": name, "exchange": state["exchange"], "ended_us": ended_us, "reason": reason, "words": words}
        for name, state in board.items()
        for ended_us, reason, words in state.get("ends", ())
    ]
    return sorted(ends, key=lambda end: end["ended_us"], reverse=True)[:MOST_ENDS]


def _sums(sums: Mapping[Series, float]) -> dict[str, int | None]:
    """Events by what became of them, over all processes; None where no process has counted anything yet."""
    totals: dict[str, float] = {}
    for (series, _), value in sums.items():
        totals[series] = totals.get(series, 0) + value
    return {name: int(totals.get(counter, 0)) if totals else None for name, counter in SUMS.items()}
