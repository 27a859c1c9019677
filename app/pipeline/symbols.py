"""Asks a venue over REST which symbols it lists. Binance and Upbit stay silent about a symbol they do not know."""

from __future__ import annotations

import httpx

from app.buffer.budget import Budget
from app.connection.backoff import DEFAULT_RETRY_AFTER_S, told_s
from app.errors import BufferUnavailable, FrameRejected
from app.exchanges import exchange_of
from app.pipeline.plan import Stream

TIMEOUT_S = 5.0


def unlisted(stream: Stream, budget: Budget) -> dict[str, str] | None:
    """The stream's symbols that its venue does not list, with words for people.

    Empty where the venue could not be asked: then silence is judged by freshness alone. None when its answer was to stay
    away; all workers know of it then.
    """
    exchange = exchange_of(stream.exchange, stream.source)
    try:
        if budget.take(stream.exchange, "rest", exchange.limits.rest) > 0:
            return {}
        response = httpx.get(
            stream.rest_url.rstrip("/") + exchange.symbols_path,
            timeout=TIMEOUT_S,
            proxy=stream.proxy,
            trust_env=False,
            headers={"User-Agent": "collector"},
        )
        if response.status_code in (418, 429):
            told = told_s(response.headers.get("retry-after", ""))
            budget.block(stream.exchange, DEFAULT_RETRY_AFTER_S if told is None else told)
            return None
        response.raise_for_status()
        listed = exchange.listed(response.content)
    except (httpx.HTTPError, FrameRejected, BufferUnavailable):
        return {}
    return {
        symbol: f"not in the venue's list of open symbols ({exchange.symbols_path})"
        for symbol in stream.subscription.symbols
        if symbol not in listed
    }
