"""The pages: one document for every path, and what it loads. Nothing comes from another host."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"
#: Which page a path is, static/main.js knows.
PAGES = ("/", "/market/{exchange}/{symbol}", "/completeness", "/archive", "/losses")


def routes() -> list[BaseRoute]:
    """The pages and `/static`. A browser asks each time whether a file has changed: an upgrade shows at once."""

    async def page(_: Request) -> Response:
        return FileResponse(STATIC / "index.html", media_type="text/html; charset=utf-8")

    return [*(Route(path, page) for path in PAGES), Mount("/static", StaticFiles(directory=STATIC))]
