"""The web process: dashboard, health, readiness and metrics over HTTP. It only reads, from Redis, the ledger and segments."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from app.clock import monotonic_s, wall_us
from app.web import api_archive, api_completeness, api_losses, api_market, api_overview, shell
from app.web.guard import Guard
from app.web.health import health, in_short, ready
from app.web.overview import Overview
from app.web.scrape import Scrape
from app.wiring import Wiring


def application(wiring: Wiring, host: str = "127.0.0.1", over: Callable[[], bool] = lambda: False) -> Starlette:
    """The ASGI application. Redis and SQLite are asked on a thread of the pool, never on the event loop.

    `host`: the address that is listened on (app/web/guard.py); once `over` says so, viewers of live pages are sent away.
    """
    started_s, started_us = monotonic_s(), wall_us()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape(wiring, started_us // 1_000_000))

    async def get_health(request: Request) -> Response:
        body, status = await run_in_threadpool(health, wiring, monotonic_s() - started_s)
        return JSONResponse(in_short(body) if request.state.stranger else body, status)

    async def get_ready(request: Request) -> Response:
        body, status = await run_in_threadpool(ready, wiring, monotonic_s() - started_s)
        return JSONResponse(in_short(body) if request.state.stranger else body, status)

    async def get_metrics(_: Request) -> Response:
        text = await run_in_threadpool(generate_latest, registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

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
