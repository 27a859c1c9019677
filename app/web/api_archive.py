"""`/api/archive`: what is archived and how it was proved, what that takes and costs, and when the next objects come."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.clock import wall_us
from app.errors import BufferUnavailable, CollectorError, StoreError, StoreUnavailable
from app.objects import layout
from app.store.ledger import OPEN, SEALED, VERIFIED, SegmentEntry
from app.store.listing import Cursor, Listing
from app.store.segment import SealedSegment
from app.web.asked import number
from app.wiring import Wiring

PAGE_OBJECTS = 50
MOST_CONFLICTS = 20
#: Growth is told by what was archived in the last day, or since the first object, where that is less.
DAY_US = 86_400 * 1_000_000
MONTH_DAYS = 365.2425 / 12
GB = 10**9
#: A manifest is told whole up to this.
MAX_MANIFEST_BYTES = 8 * 1024 * 1024


def routes(wiring: Wiring) -> list[Route]:
    """`/api/archive`, `/api/archive/objects?market=&before=` and `/api/archive/object?key=`."""
    page = _Page(wiring)

    async def overview(request: Request) -> Response:
        return await _answered(page.overview)

    async def objects(request: Request) -> Response:
        return await _answered(
            page.objects, request.query_params.get("market", ""), request.query_params.get("before", "")
        )

    async def one(request: Request) -> Response:
        return await _answered(page.manifest, request.query_params.get("key", ""))

    return [
        Route("/api/archive", overview),
        Route("/api/archive/objects", objects),
        Route("/api/archive/object", one),
    ]


async def _answered(answer: Any, *args: Any) -> Response:
    status = 200
    try:
        body = await run_in_threadpool(answer, *args)
    except ValueError as error:
        status, body = 400, {"error": str(error)}
    except StoreError as error:
        status, body = 503 if isinstance(error, StoreUnavailable) else 404, {"error": str(error)}
    except (CollectorError, SQLAlchemyError, OSError) as error:
        status, body = 503, {"error": str(getattr(error, "orig", None) or error)}
    return Response(msgspec.json.encode({"now_us": wall_us(), **body}), status, media_type="application/json")


class _Page:
    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._made: Listing | None = None

    @property
    def _listing(self) -> Listing:
        ledger = self._wiring.ledger_here
        if self._made is None:
            self._made = Listing(ledger, self._wiring.settings.storage.segments_path)
        return self._made

    def overview(self) -> dict[str, Any]:
        now_us, settings, name = wall_us(), self._wiring.settings, self._wiring.store.name
        feeds = self._feeds(name)
        total = {key: sum(feed[key] for feed in feeds) for key in ("objects", "rows", "size_bytes", "written")}
        segments, _, _ = self._wiring.ledger.totals()
        conflicts, newest = self._listing.conflicts(MOST_CONFLICTS)
        troubles, compression = self._said()
        return {
            "stores": [store.name for store in self._wiring.stores],
            "shown_store": name,
            "total": total,
            "feeds": feeds,
            "segments": segments,
            "compression": compression,
            "growth": self._growth(name, now_us, total["size_bytes"]),
            "next": self._next(now_us),
            "segment_secs": settings.storage.segment_secs,
            "archive_interval_secs": settings.collector.archive_interval_secs,
            "troubles": troubles,
            "conflicts": {"total": conflicts, "newest": newest},
            "objects": self.objects("", ""),
        }

    def _feeds(self, store: str) -> list[dict[str, Any]]:
        """What the nearest store has of each feed; `written` objects are on their way."""
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for (name, *feed, state), (objects, rows, size_bytes) in sorted(self._listing.sums().items()):
            if name != store:
                continue
            exchange, symbol, data_type = feed
            told = found.setdefault(
                tuple(feed),
                {
                    "exchange": exchange, "symbol": symbol, "data_type": data_type, "objects": 0, "rows": 0,
                    "size_bytes": 0, "written": 0,
                },
            )  # fmt: skip
            if state == VERIFIED:
                told |= {"objects": objects, "rows": rows, "size_bytes": size_bytes}
            else:
                told["written"] += objects
        return list(found.values())

    def _growth(self, store: str, now_us: int, total_bytes: int) -> dict[str, Any]:
        """Bytes a month and what they cost, by the last day; all None before the first object."""
        price = self._wiring.settings.storage.price_per_gb_month
        size_bytes, opened_us = self._listing.grown(store, now_us - DAY_US)
        window_us = min(DAY_US, now_us - opened_us) if opened_us is not None else 0
        a_month = size_bytes * MONTH_DAYS * DAY_US / window_us if window_us > 0 else None
        return {
            "window_us": window_us,
            "window_bytes": size_bytes,
            "bytes_per_month": None if a_month is None else round(a_month),
            "price_per_gb_month": price,
            "cost_per_month_now": total_bytes / GB * price,
            #: What one more month of recording adds to each monthly bill that follows.
            "cost_per_month_added": None if a_month is None else a_month / GB * price,
        }

    def _next(self, now_us: int) -> dict[str, Any]:
        """When the open segment is sealed, which the archive follows; and sealed ones that are not archived whole."""
        segment_us = self._wiring.settings.storage.segment_secs * 1_000_000
        open_ = self._wiring.ledger.segments(OPEN)
        waiting = [one for one in self._wiring.ledger.segments(SEALED) if self._waits(one)]
        return {
            "seal_us": (open_[0].opened_us // segment_us + 1) * segment_us if open_ else None,
            "waiting_segments": len(waiting),
            "waiting_since_us": min((one.sealed_us or now_us for one in waiting), default=None),
        }

    def _waits(self, one: SegmentEntry) -> bool:
        """Whether a store lacks an object of a sealed segment. The newest one is kept a while after that."""
        try:
            ranges = SealedSegment(self._wiring.settings.storage.segments_path / one.path).records("ranges")
        except DBAPIError:
            return True  # damaged, or removed at this moment
        held = {(o.store, *o[1:4]) for o in self._wiring.ledger.objects(one.number) if o.state == VERIFIED}
        feeds = {(row["exchange"], row["symbol"], row["feed"]) for row in ranges if row["stored"]}
        return any((store.name, *feed) not in held for store in self._wiring.stores for feed in feeds)

    def _said(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """What keeps the archive from its work, and the bytes of what it wrote as text and as stored; None without Redis."""
        try:
            troubles, sums = self._wiring.board.troubles(), self._wiring.tally.sums()
        except BufferUnavailable:
            return None, None
        kinds = {
            kind: sums.get(("collector_object_bytes_total", (("kind", kind),)), 0.0) for kind in ("text", "stored")
        }
        ratio = kinds["text"] / kinds["stored"] if kinds["stored"] else None
        return troubles, {"text_bytes": kinds["text"], "stored_bytes": kinds["stored"], "ratio": ratio}

    def objects(self, market: str, before: str) -> dict[str, Any]:
        """One page; `before` is the `next` of the page before it. Raises: ValueError."""
        where = {}
        if market:
            exchange, slash, symbol = market.partition("/")
            if not (exchange and slash and symbol):
                raise ValueError(f"market {market[:80]!r} is not EXCHANGE/SYMBOL, as in binance/btcusdt")
            where = {"exchange": exchange, "symbol": symbol}
        found = self._listing.objects(PAGE_OBJECTS + 1, _cursor(before) if before else None, **where)
        # A page ends with an object, not between the stores that have it.
        last = [found[0][name] for name in Cursor._fields] if found else []
        page = found
        if len(found) > PAGE_OBJECTS:
            last = [found[-1][name] for name in Cursor._fields]
            page = [row for row in found if [row[name] for name in Cursor._fields] != last]
            last = [page[-1][name] for name in Cursor._fields]
        more = "/".join(map(str, last)) if len(page) < len(found) else None
        return {"rows": page, "next": more}

    def manifest(self, key: str) -> dict[str, Any]:
        """The manifest of the object `key`, as it stands in the store. Raises: ValueError, StoreError."""
        layout.parse_key(key)
        with self._wiring.store.open(layout.manifest_key(key)) as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            raise ValueError(f"the manifest of {key} has more than {MAX_MANIFEST_BYTES} bytes: read it in the store")
        return {"store": self._wiring.store.name, "manifest": msgspec.Raw(text)}


def _cursor(text: str) -> Cursor:
    segment, *feed = text.split("/")
    try:
        return Cursor(number("segment", segment), *feed)
    except (TypeError, ValueError):
        raise ValueError(f"before {text[:80]!r} is not the `next` of a page") from None
