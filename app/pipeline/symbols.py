"""Asks a venue over REST which symbols it lists. Binance and Upbit stay silent about a symbol they do not know."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from contextlib import suppress

from app.buffer.budget import Budget
from app.clock import monotonic_s
from app.config import Settings
from app.connection.backoff import DEFAULT_RETRY_AFTER_S, told_s
from app.errors import BufferUnavailable, FrameRejected, VenueNotAsked, VenueUnavailable
from app.exchanges import exchange_of
from app.model import Market
from app.pipeline.plan import Stream
from app.pipeline.rest import Answer, ask
from app.settings_rules import shown

#: So many listed symbols are offered for one that is not.
NEAR = 3


def listed(
    name: str,
    source: str | None,
    rest_url: str,
    proxy: str | None,
    budget: Budget | None = None,
    private_hosts: Collection[str] = (),
) -> frozenset[str]:
    """Canonical symbols that the exchange `name` has open for trading, asked for now, in one request.

    `budget`: shared with all workers; None asks without it. Raises: VenueNotAsked, BufferUnavailable.
    """
    exchange = exchange_of(name, source)
    if budget is not None and (wait_s := budget.take(name, "rest", exchange.limits.rest)) > 0:
        raise VenueNotAsked(name, "the budget of requests is used up", f"ask again in {max(1, round(wait_s))} s")
    wrong = f"is [exchanges.{name}] rest_url = {shown('exchanges.rest_url', rest_url)} right?"
    try:
        answer = ask(name, rest_url, exchange.symbols_path, proxy, monotonic_s, private_hosts)
        _refuse(name, answer, budget, wrong)
        return exchange.listed(answer.body)
    except VenueUnavailable as error:
        remedy = f"is the network up? else set [exchanges.{name}] rest_url or proxy"
        raise VenueNotAsked(name, f"no answer: {error.words}", remedy, lasting=True) from error
    except FrameRejected as error:
        raise VenueNotAsked(name, f"it answers something else ({error})", wrong, lasting=True) from error


def _refuse(name: str, answer: Answer, budget: Budget | None, wrong: str) -> None:
    """Raises VenueNotAsked for every answer but a success; a venue that wants to be left alone is left alone by all."""
    status = answer.status
    if 200 <= status < 300:
        return
    if status in (418, 429):
        told = told_s(answer.retry_after)
        wait_s = DEFAULT_RETRY_AFTER_S if told is None else told
        if budget is not None:
            with suppress(BufferUnavailable):
                budget.block(name, wait_s)
        raise VenueNotAsked(
            name, f"HTTP {status}, asked too often", f"ask again in {wait_s:.0f} s (Retry-After)", stay_away=True
        )
    if status in (403, 451):
        remedy = f"it does not serve this place; set [exchanges.{name}] ws_url, rest_url or proxy"
        raise VenueNotAsked(name, f"HTTP {status}", remedy, lasting=True)
    if status >= 500:
        raise VenueNotAsked(name, f"HTTP {status}", "the venue is in trouble; ask again later")
    raise VenueNotAsked(name, f"HTTP {status}", wrong, lasting=True)


def unlisted(stream: Stream, budget: Budget) -> dict[str, str] | None:
    """The stream's symbols that its venue does not list, with words for people.

    Empty where the venue could not be asked: then silence is judged by freshness alone. None when its answer was to stay
    away; all workers know of it then.
    """
    try:
        where = stream.exchange, stream.source, stream.rest_url, stream.proxy
        found = listed(*where, budget, stream.private_hosts)
    except VenueNotAsked as error:
        return None if error.stay_away else {}
    except BufferUnavailable:
        return {}
    words = _words(stream.exchange, stream.source)
    return {symbol: words for symbol in stream.subscription.symbols if symbol not in found}


def findings(settings: Settings, markets: Collection[Market], budget: Budget) -> Iterator[tuple[str, str]]:
    """("fault" or "warning", sentence) for each of `markets` that its venue does not list, and each venue not asked.

    One request for each exchange of `markets`. While Redis does not answer, nobody shares the budget: it is not kept.
    """
    for name in dict.fromkeys(market.exchange for market in markets):
        venue = settings.exchanges[name]
        where = name, venue.source, venue.rest_url, venue.proxy
        try:
            try:
                found = listed(*where, budget, settings.security.private_hosts)
            except BufferUnavailable:
                found = listed(*where, None, settings.security.private_hosts)
        except VenueNotAsked as error:
            yield "fault" if error.lasting else "warning", str(error)
            continue
        for market in markets:
            if market.exchange == name and market.symbol not in found:
                yield "fault", f"{market} is {_words(name, venue.source)}; {near(market.symbol, found)}"


def near(symbol: str, known: Collection[str]) -> str:
    """The end of a sentence about a `symbol` that is not among `known`: which of these may be meant."""
    found = difflib.get_close_matches(symbol, known, NEAR, 0.6)
    return f"did you mean {' or '.join(found)}?" if found else "correct or remove it"


def _words(name: str, source: str | None) -> str:
    return f"not in the venue's list of open symbols ({exchange_of(name, source).symbols_path})"
