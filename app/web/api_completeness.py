"""`/api/completeness`: how complete each hour of each feed is, and everything that is known of one hour."""

from __future__ import annotations

import threading
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.clock import monotonic_s, wall_us
from app.objects.manifest import Manifest
from app.pipeline.hourly import Grid, Hourly
from app.pipeline.hours import HOUR_US, Cell, Feed, hour_of
from app.web.asked import answered, number, refused
from app.wiring import Wiring

#: An answer is as good as new for so long, however many ask.
FRESH_S = 5.0
#: For manifests that were never read; the page asks again for the rest.
READ_S = 3.0
#: Manifests that are asked for at the same time where they are in a bucket.
AT_ONCE = 8
MOST_HOURS = 720
#: Records of each kind that one cell tells, the newest of them; `total` says how many there are.
MOST_RECORDS = 200


def routes(wiring: Wiring) -> list[Route]:
    """`/api/completeness?hours=48` and `/api/completeness/{exchange}/{symbol}/{data_type}/{hour_us}`."""
    page = _Page(wiring)

    async def grid(request: Request) -> Response:
        try:
            hours = number("hours", request.query_params.get("hours", "48"), 1, MOST_HOURS)
        except ValueError as error:
            return refused(str(error))
        return await answered(page.grid, hours)

    async def cell(request: Request) -> Response:
        path = request.path_params
        try:
            hour_us = number("hour_us", path["hour_us"])
        except ValueError as error:
            return refused(str(error))
        if hour_us != hour_of(hour_us):
            return refused(f"{hour_us} is not the beginning of a UTC hour in microseconds since the Unix epoch")
        if not 0 <= wall_us() - hour_us <= MOST_HOURS * HOUR_US:
            return refused(f"{hour_us} is not within the last {MOST_HOURS} hours, which is what is told of")
        return await answered(page.cell, (path["exchange"], path["symbol"], path["data_type"]), hour_us)

    return [
        Route("/api/completeness", grid),
        Route("/api/completeness/{exchange}/{symbol}/{data_type}/{hour_us}", cell),
    ]


class _Page:
    """What was read last, for all who ask."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._lock = threading.Lock()
        self._hourly: Hourly | None = None
        self._known: dict[int, tuple[float, dict[str, Any]]] = {}

    def _read(self) -> Hourly:
        wiring, ledger = self._wiring, self._wiring.ledger_here
        if self._hourly is None:
            self._hourly = Hourly(
                ledger, wiring.settings.storage.segments_path, wiring.store, wall_us=wall_us, monotonic_s=monotonic_s,
                at_once=1 if wiring.store.name == "local" else AT_ONCE,
            )  # fmt: skip
        return self._hourly

    def grid(self, hours: int) -> dict[str, Any]:
        with self._lock:
            known = self._known.get(hours)
            if known is None or monotonic_s() - known[0] > FRESH_S:
                now_us = wall_us()
                first_us = hour_of(now_us) - (hours - 1) * HOUR_US
                found = self._read().grid(first_us, now_us + 1, deadline_s=READ_S)
                known = monotonic_s(), self._told(found, first_us, hours, now_us)
                self._known = {h: k for h, k in self._known.items() if monotonic_s() - k[0] <= FRESH_S} | {hours: known}
            return known[1]

    def _told(self, found: Grid, first_us: int, hours: int, now_us: int) -> dict[str, Any]:
        configured = {
            (stream.exchange, symbol, feed)
            for stream in self._wiring.streams.values()
            for symbol in stream.subscription.symbols
            for feed in stream.subscription.feeds
        }
        at = [first_us + n * HOUR_US for n in range(hours)]
        feeds = sorted(configured | found.cells.keys())
        rows = [_row(feed, found.cells.get(feed, {}), at, feed in configured) for feed in feeds]
        return {"now_us": now_us, "hours_us": at, "unread_objects": found.unread, "feeds": rows}

    def cell(self, feed: Feed, hour_us: int) -> dict[str, Any]:
        with self._lock:
            archived, running = self._read().opened(feed, hour_us)
        exchange, symbol, data_type = feed
        of = {"now_us": wall_us(), "exchange": exchange, "symbol": symbol, "data_type": data_type, "hour_us": hour_us}
        every = [*archived, *running]
        return {
            **of,
            "objects": [_object(m) for m in archived],
            "running": [_object(m) for m in running],
            "gaps": _united(every, "gaps", "after_us"),
            "repairs": _united(every, "repairs", "found_us"),
            "losses": _united(every, "losses", "end_us"),
            "checks": _united(every, "checks", "end_us"),
            "epochs": _united(every, "epochs", "opened_us"),
        }


def _row(feed: Feed, cells: dict[int, Cell], hours_us: list[int], configured: bool) -> dict[str, Any]:
    """`cells`: one for each hour, null where nothing was collected."""
    exchange, symbol, data_type = feed
    return {
        "exchange": exchange, "symbol": symbol, "data_type": data_type, "configured": configured,
        "cells": [cells.get(hour_us) for hour_us in hours_us],
    }  # fmt: skip


def _object(told: Manifest) -> dict[str, Any]:
    """What a manifest says, without its lists; `key` is empty where it is not archived yet."""
    names = (
        "key", "segment", "opened_us", "sealed_us", "rows", "duplicates", "quarantined", "size_bytes", "sha256",
        "first_collector_us", "last_collector_us", "completeness", "completeness_reasons",
    )  # fmt: skip
    return {name: getattr(told, name) for name in names}


def _united(every: list[Manifest], name: str, time: str) -> dict[str, Any]:
    """The records of all of them, each once, the newest first."""
    found = list(dict.fromkeys(record for told in every for record in getattr(told, name)))
    found.sort(key=lambda record: -(getattr(record, time) or 0))
    return {"total": len(found), "newest": found[:MOST_RECORDS]}
