"""The web process: dashboard, health, readiness and metrics over HTTP. It only reads, from Redis, the ledger and segments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from app.clock import monotonic_s, wall_us
from app.web import api_archive, api_completeness, api_losses, api_market, api_overview, shell
from app.web.guard import Guard
from app.web.health import health, in_short, ready
from app.web.look import Look
from app.web.overview import Overview
from app.web.scrape import Scrape
from app.wiring import Wiring

T = TypeVar("T")

#: An answer of /health and of /ready is good for so long: anybody may ask, and as often as they like.
OPEN_S = 1.0


def application(wiring: Wiring, host: str = "127.0.0.1", over: Callable[[], bool] = lambda: False) -> Starlette:
    """The ASGI application. Redis and SQLite are asked on threads, never on the event loop; for health, readiness and metrics
    on one each, whose answer goes to all who wait for it: those who ask while Redis hangs hold no thread of the pages.

    `host`: the address that is listened on (app/web/guard.py); once `over` says so, viewers of live pages are sent away.
    """
    started_s, started_us = monotonic_s(), wall_us()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape(wiring, started_us // 1_000_000))

    def looks(name: str, ask: Callable[[], T], keep_s: float) -> Look[T]:
        return Look(f"answer {name}", ask, (), monotonic_s=monotonic_s, keep_s=keep_s)

    healths = looks("/health", lambda: health(wiring, monotonic_s() - started_s), OPEN_S)
    readies = looks("/ready", lambda: ready(wiring, monotonic_s() - started_s), OPEN_S)
    scrapes = looks("/metrics", lambda: generate_latest(registry), 0.0)

    async def get_health(request: Request) -> Response:
        body, status = await shared(healths)
        return JSONResponse(in_short(body) if request.state.stranger else body, status)

    async def get_ready(request: Request) -> Response:
        body, status = await shared(readies)
        return JSONResponse(in_short(body) if request.state.stranger else body, status)

    async def get_metrics(_: Request) -> Response:
        return Response(await shared(scrapes), media_type="text/plain; version=0.0.4; charset=utf-8")

    overview = Overview(wiring)
    served: list[BaseRoute] = [
        Route("/health", get_health),
        Route("/ready", get_ready),
        Route("/metrics", get_metrics),
        *api_completeness.routes(wiring),
        *api_archive.routes(wiring),
        *api_losses.routes(wiring),
        *api_overview.routes(wiring, overview),
        *api_market.routes(wiring, overview),
        *shell.routes(),
    ]
    app = Starlette(routes=served, middleware=[Middleware(Guard, host=host, token=wiring.settings.web.token)])
    app.state.over = over
    return app


async def shared(look: Look[T]) -> T:
    """The answer of `look`, waited for without a thread. Raises: what its question raises. Who leaves takes it from nobody."""
    return await asyncio.shield(asyncio.wrap_future(look.begin()))
