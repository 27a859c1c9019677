"""`/api/overview`, the same as a stream of events, and `/api/markets`."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.clock import wall_us
from app.errors import BufferUnavailable
from app.web.broadcast import Broadcast, Seats, followed
from app.web.overview import Overview
from app.wiring import Wiring

EVERY_S = 1.0


def routes(wiring: Wiring, overview: Overview) -> list[Route]:
    """One computation serves all who ask within a second; without Redis the answer is 503 (or the event `away`)."""

    def tell() -> tuple[str, dict[str, Any]]:
        try:
            return "overview", overview.document()
        except BufferUnavailable as error:
            return "away", {"now_us": wall_us(), "words": f"Redis is away: {error}"}

    broadcast, seats = Broadcast(tell, EVERY_S), Seats()

    async def get(_: Request) -> Response:
        name, document = await run_in_threadpool(tell)
        if name == "away":
            return JSONResponse({"error": document["words"], "now_us": document["now_us"]}, 503)
        return JSONResponse(document, headers={"Cache-Control": "no-store"})

    async def follow(request: Request) -> Response:
        return followed(request, broadcast, seats)

    async def markets(_: Request) -> Response:
        planned = sorted({(s.exchange, symbol) for s in wiring.streams.values() for symbol in s.subscription.symbols})
        named = [{"exchange": exchange, "symbol": symbol} for exchange, symbol in planned]
        return JSONResponse({"now_us": wall_us(), "markets": named})

    return [Route("/api/overview", get), Route("/api/stream", follow), Route("/api/markets", markets)]
