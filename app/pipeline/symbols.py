"""Asks a venue over REST which symbols it lists. Binance and Upbit stay silent about a symbol they do not know."""

from __future__ import annotations

from app.buffer.budget import Budget
from app.clock import monotonic_s
from app.errors import BufferUnavailable, FrameRejected, VenueAsksUsAway, VenueUnavailable
from app.exchanges import exchange_of
from app.pipeline.plan import Stream
from app.pipeline.rest import Rest


def unlisted(stream: Stream, budget: Budget) -> dict[str, str] | None:
    """The stream's symbols that its venue does not list, with words for people.

    Empty where the venue could not be asked: then silence is judged by freshness alone. None when its answer was to stay
    away; all workers know of it then.
    """
    exchange = exchange_of(stream.exchange, stream.source)
    rest = Rest(stream.exchange, stream.rest_url, stream.proxy, exchange.limits.rest, budget, monotonic_s)
    try:
        answer = rest.get(exchange.symbols_path)
        if answer.status != 200:
            return {}
        listed = exchange.listed(answer.body)
    except VenueAsksUsAway:
        return None
    except (VenueUnavailable, FrameRejected, BufferUnavailable):
        return {}
    return {
        symbol: f"not in the venue's list of open symbols ({exchange.symbols_path})"
        for symbol in stream.subscription.symbols
        if symbol not in listed
    }
