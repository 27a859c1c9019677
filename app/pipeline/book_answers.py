"""Asks a venue over REST for one book, within the budget that all workers share."""

from __future__ import annotations

import httpx

from app.books.change import RestBook
from app.books.venues import VENUES
from app.buffer.budget import Budget
from app.connection.backoff import DEFAULT_RETRY_AFTER_S
from app.exchanges import exchange_of
from app.pipeline.plan import Stream

TIMEOUT_S = 5.0


def ask(stream: Stream, symbol: str, budget: Budget) -> RestBook | None:
    """The book of one market of `stream`, without levels where it could not be compared; None while the budget says wait.

    Raises: ValueError where there is no answer or it is no book; BufferUnavailable.
    """
    venue = VENUES[stream.exchange]
    if venue.rest_path is None:
        return RestBook(None, (), ())
    limits = exchange_of(stream.exchange, stream.source).limits
    if budget.take(stream.exchange, "rest", limits.rest) > 0:
        return None
    try:
        response = httpx.get(
            stream.rest_url.rstrip("/") + venue.rest_path(symbol),
            timeout=TIMEOUT_S,
            proxy=stream.proxy,
            trust_env=False,
            headers={"User-Agent": "collector"},
        )
        if response.status_code in (418, 429):
            told = response.headers.get("retry-after", "")
            budget.block(stream.exchange, float(told) if told.isdecimal() else DEFAULT_RETRY_AFTER_S)
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise ValueError(str(error) or type(error).__name__) from error
    return venue.rest(response.content)
