"""Questions of pages: their numbers are bounded before anything is done with them; what answers them may fail in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from app.clock import wall_us
from app.errors import CollectorError

MOST = 2**63 - 1


def number(name: str, text: str, least: int = 0, most: int = MOST) -> int:
    """`text` as a number from `least` to `most`. Raises: ValueError with what would do."""
    # So long a text is beyond every bound; Python itself refuses some thousand digits in words of its own.
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST)) and least <= int(text) <= most):
        raise ValueError(f"{name} is {text[:20]!r}: give a number from {least} to {most}")
    return int(text)


async def answered(answer: Callable[..., Any], *args: Any) -> Response:
    """What `answer` returns, on a thread of its own; 503 and why where the ledger, a segment or the store cannot be read."""
    try:
        body = await run_in_threadpool(answer, *args)
    except (CollectorError, SQLAlchemyError, OSError, ValueError) as error:
        return JSONResponse({"now_us": wall_us(), "error": str(getattr(error, "orig", None) or error)}, 503)
    return Response(msgspec.json.encode(body), media_type="application/json")


def refused(why: str) -> Response:
    """400: the question itself is wrong."""
    return JSONResponse({"now_us": wall_us(), "error": why}, 400)
