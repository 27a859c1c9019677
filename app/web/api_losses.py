"""`/api/losses`: what was received and given up, what is in quarantine, and how connections ended, in the venue's words."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.clock import monotonic_s, wall_us
from app.errors import BufferUnavailable
from app.store.listing import Listing
from app.web.asked import answered, number, refused
from app.wiring import Wiring

HOUR_US = 3600 * 1_000_000
MOST_HOURS = 24 * 366
#: An answer is as good as new for so long, however many ask.
FRESH_S = 5.0
#: The newest so many of each are told one by one; the sums are over all of them.
MOST_ROWS = 200
_FACTS = (
    "connection", "since_us", "why", "epoch", "last_error", "ends", "connections_opened", "closes", "refused",
)  # fmt: skip


def routes(wiring: Wiring) -> list[Route]:
    """`/api/losses?hours=168`."""
    page = _Page(wiring)

    async def get(request: Request) -> Response:
        try:
            hours = number("hours", request.query_params.get("hours", "168"), 1, MOST_HOURS)
        except ValueError as error:
            return refused(str(error))
        return await answered(page.told, hours)

    return [Route("/api/losses", get)]


class _Page:
    """What was read last, for all who ask."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._known: dict[int, tuple[float, dict[str, Any]]] = {}

    def told(self, hours: int) -> dict[str, Any]:
        """Raises: SQLAlchemy's errors and CollectorError for a ledger that cannot be read."""
        with self._lock:
            known = self._known.get(hours)
            if known is None or monotonic_s() - known[0] > FRESH_S:
                ledger = self._wiring.ledger_here
                if self._listing is None:
                    self._listing = Listing(ledger, self._wiring.settings.storage.segments_path)
                known = monotonic_s(), _read(self._wiring, self._listing, hours)
                self._known = {h: k for h, k in self._known.items() if monotonic_s() - k[0] <= FRESH_S} | {hours: known}
            return known[1]


def _read(wiring: Wiring, listing: Listing, hours: int) -> dict[str, Any]:
    now_us = wall_us()
    lost = wiring.stored.records("losses", since=("end_us", now_us - hours * HOUR_US))
    lost.sort(key=lambda row: (-row["end_us"], row["epoch"], row["symbol"], row["feed"], row["first"]))
    by_feed, newest = listing.quarantined(MOST_ROWS)
    return {
        "now_us": now_us,
        "hours": hours,
        "losses": {"by_cause": _by_cause(lost), "total": len(lost), "newest": lost[:MOST_ROWS]},
        "quarantine": {
            "by_feed": by_feed,
            "total": sum(row["count"] for row in by_feed),
            "newest": [{**row, "head": _text(row["head"])} for row in newest],
        },
        "connections": _connections(wiring),
        "ended": listing.ended(MOST_ROWS),
    }


def _by_cause(lost: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By cause and feed: declared losses, the events they count, and how many of them nobody can count; the most first."""
    declared, events, unknown = Counter[tuple[str, ...]](), Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    last_us: dict[tuple[str, ...], int] = {}
    names = ("cause", "exchange", "symbol", "feed")
    for row in lost:
        key = tuple(row[name] for name in names)
        declared[key] += 1
        events[key] += row["count"] or 0
        unknown[key] += row["count"] is None
        last_us[key] = max(last_us.get(key, 0), row["end_us"])
    return [
        {**dict(zip(names, key, strict=True)), "losses": declared[key], "events": events[key],
         "of_unknown_extent": unknown[key], "last_us": last_us[key]}
        for key in sorted(declared, key=lambda key: (-events[key], -declared[key], key))
    ]  # fmt: skip


def _text(head: bytes) -> str:
    """The beginning of a frame for people: what is no UTF-8, and what a terminal would obey, in backslashes."""
    text = bytes(head).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _connections(wiring: Wiring) -> list[dict[str, Any]] | None:
    """Every stream of the plan as it told of itself in the last seconds; None while Redis does not answer."""
    try:
        states = wiring.board.states(list(wiring.streams))
    except BufferUnavailable:
        return None
    found = []
    for name, stream in wiring.streams.items():
        state = states.get(name, {"connection": "down", "why": "no stream worker has it"})
        about = {fact: state.get(fact) for fact in _FACTS}
        found.append({"stream": name, "exchange": stream.exchange, **about})
    return found
