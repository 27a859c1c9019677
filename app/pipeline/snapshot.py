"""Asks a venue over REST for the book that the changes of a stream begin with."""

from __future__ import annotations

from app.buffer.budget import Budget
from app.clock import monotonic_s
from app.errors import FrameRejected, VenueUnavailable
from app.exchanges import exchange_of
from app.exchanges.base import Decoded
from app.pipeline.plan import Stream
from app.pipeline.rest import Rest

#: Of a refusal's text so much is told.
WORDS_CHARS = 200


def ask(stream: Stream, symbol: str, budget: Budget) -> Decoded:
    """The book of one market of `stream` by now, within the budget that all workers share.

    Raises: VenueUnavailable where there is no answer, or one that is no book; BufferUnavailable.
    """
    exchange = exchange_of(stream.exchange, stream.source)
    path = exchange.book_path(stream.subscription, symbol)
    assert path is not None, f"{stream.exchange} brings the snapshots of this channel itself"
    where = stream.exchange, stream.rest_url, stream.proxy
    rest = Rest(*where, exchange.limits.rest, budget, monotonic_s, stream.private_hosts)
    answer = rest.get(path)
    if answer.status != 200:
        words = answer.body[:WORDS_CHARS].decode(errors="replace")
        raise VenueUnavailable(stream.exchange, f"HTTP {answer.status} to {path}: {words}")
    try:
        return exchange.asked_book(symbol, answer.body)
    except FrameRejected as error:
        raise VenueUnavailable(stream.exchange, f"no book at {path}: {error}") from error
