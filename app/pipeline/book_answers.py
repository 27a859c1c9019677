"""Asks a venue over REST for one book."""

from __future__ import annotations

from app.books.change import RestBook
from app.books.venues import VENUES
from app.buffer.budget import Budget
from app.clock import monotonic_s
from app.errors import VenueUnavailable
from app.exchanges import exchange_of
from app.pipeline.plan import Stream
from app.pipeline.rest import Rest


def ask(stream: Stream, symbol: str, budget: Budget) -> RestBook:
    """The book of one market of `stream`, without levels where it could not be compared.

    Raises: ValueError where there is no answer, also while the shared budget says wait, or it is no book; BufferUnavailable.
    """
    venue = VENUES[stream.exchange]
    if venue.rest_path is None:
        return RestBook(None, (), ())
    pace = exchange_of(stream.exchange, stream.source).limits.rest
    where = stream.exchange, stream.rest_url, stream.proxy
    rest = Rest(*where, pace, budget, monotonic_s, stream.private_hosts)
    try:
        return venue.rest(rest.get(venue.rest_path(symbol)).body)
    except VenueUnavailable as error:
        raise ValueError(str(error)) from error
