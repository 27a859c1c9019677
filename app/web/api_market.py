"""`/api/market/{exchange}/{symbol}`: one market live, and the same as a stream of events."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.clock import wall_us
from app.errors import BufferUnavailable
from app.model import Market
from app.web.broadcast import Broadcast, Seats, followed
from app.web.market import MarketView
from app.web.overview import Overview
from app.wiring import Wiring

EVERY_S = 0.25
#: Whoever asks once waits so long for the book to be made of what is stored.
BEGIN_S = 5.0
#: Markets that are followed at once; each is a thread and a connection to Redis.
MOST_MARKETS = 32


class Floor:
    """The markets somebody looks at."""

    def __init__(self, wiring: Wiring, overview: Overview) -> None:
        self._wiring, self._overview = wiring, overview
        self._views: dict[Market, tuple[MarketView, Broadcast]] = {}

    def refusal(self, market: Market) -> JSONResponse | None:
        """Why this market cannot be looked at; None where it can."""
        planned = {(s.exchange, symbol) for s in self._wiring.streams.values() for symbol in s.subscription.symbols}
        if (market.exchange, market.symbol) not in planned:
            words = f"no [[markets]] of the settings names {market.exchange} {market.symbol}"
            return JSONResponse({"error": words[:300]}, 404)
        if market not in self._views:
            self._views = {m: v for m, v in self._views.items() if v[0].live.alive or v[1].viewers}
            if len(self._views) >= MOST_MARKETS:
                words = f"{MOST_MARKETS} markets are looked at, which is the most: close a page elsewhere"
                return JSONResponse({"error": words}, 503, {"Retry-After": "10"})
        return None

    def view(self, market: Market) -> tuple[MarketView, Broadcast]:
        """The market's view, and the broadcast of it."""
        if market not in self._views:
            made = MarketView(self._wiring, self._overview, market)
            self._views[market] = made, Broadcast(lambda: told(made), EVERY_S)
        return self._views[market]


def told(view: MarketView) -> tuple[str, dict[str, Any]]:
    """The event of this moment: `market`, or `away` while Redis does not answer."""
    try:
        return "market", view.document()
    except BufferUnavailable as error:
        return "away", {"now_us": wall_us(), "words": f"Redis is away: {error}"}


def routes(wiring: Wiring, overview: Overview) -> list[Route]:
    """A market that nobody plans is a 404 with words."""
    floor, seats = Floor(wiring, overview), Seats()

    def asked(request: Request) -> Market:
        return Market(request.path_params["exchange"], request.path_params["symbol"])

    async def get(request: Request) -> Response:
        if refusal := floor.refusal(asked(request)):
            return refusal
        view, _ = floor.view(asked(request))
        await run_in_threadpool(view.live.begun.wait, BEGIN_S)
        name, document = await run_in_threadpool(told, view)
        if name == "away":
            return JSONResponse({"error": document["words"], "now_us": document["now_us"]}, 503)
        return JSONResponse(document, headers={"Cache-Control": "no-store"})

    async def follow(request: Request) -> Response:
        if refusal := floor.refusal(asked(request)):
            return refusal
        return followed(request, floor.view(asked(request))[1], seats)

    path = "/api/market/{exchange}/{symbol}"
    return [Route(path, get), Route(f"{path}/stream", follow)]
