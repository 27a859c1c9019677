"""`collector markets list|add|remove`: which markets are recorded, and the settings file changed for good."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from app.commands import completion
from app.config import Settings
from app.errors import BufferUnavailable, SettingsError
from app.model import FEEDS, Market

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group()
def markets() -> None:
    """Show which markets are recorded; add and remove some while the collector runs.

    `add` and `remove` edit the settings file (the one CONFIG_PATH names, else settings.toml) and keep its comments and
    order. Running processes see the change and take it over within seconds; only the streams that are named reconnect.
    """


@markets.command("list")
@JSON
def list_(as_json: bool) -> None:
    """Show every market: its feeds, the stream (connection) that carries it, and the state of its feeds.

    The state comes from Redis, where the stream workers publish it: `down` where no worker has the stream, `not yet` where
    it does not carry the market yet, `unknown` while Redis does not answer. Exit code 0; `collector status` judges.
    """
    from app.commands.settings import wired
    from app.settings_editing import WORDS

    wiring = wired()
    states: dict[str, Any] | None = None
    try:
        states = wiring.board.states(list(wiring.streams))
    except BufferUnavailable as error:
        click.echo(f"warning: the states are unknown, Redis does not answer: {error}", err=True)
    rows: list[dict[str, Any]] = []
    for name, stream in wiring.streams.items():
        state = None if states is None else states.get(name)
        feeds = {(f["symbol"], f["feed"]): f["state"] for f in state["feeds"]} if state else {}
        unseen = "unknown" if states is None else "not yet" if state else "down"
        for symbol in stream.subscription.symbols:
            told = {WORDS[feed]: feeds.get((symbol, feed), unseen) for feed in stream.subscription.feeds}
            rows.append(
                {"exchange": stream.exchange, "symbol": symbol, "feeds": list(told), "stream": name, "state": told}
            )
    order = {market: place for place, market in enumerate(wiring.settings.all_markets())}
    rows.sort(key=lambda row: order[Market(row["exchange"], row["symbol"])])
    if as_json:
        click.echo(json.dumps(rows))
    else:
        _table([(r["exchange"], r["symbol"], ", ".join(r["feeds"]), r["stream"], _short(r["state"])) for r in rows])


@markets.command()
@click.argument("exchange", shell_complete=completion.exchanges)
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option(
    "--feeds",
    shell_complete=completion.feeds,
    help="What to record of them: orderbook,trades. Default: [collector] feeds.",
)
@click.option("--check", is_flag=True, help="Ask the venue first; change nothing unless it lists every symbol.")
@JSON
def add(exchange: str, symbols: tuple[str, ...], feeds: str | None, check: bool, as_json: bool) -> None:
    """Record SYMBOL... of EXCHANGE from now on.

    They join the first [[markets]] of the exchange that has the same feeds and no address or timeout of its own; where there
    is none, a new one is written behind the last. Exit code 0 when all are recorded, also when they were before; 1 when
    nothing was changed because a symbol is recorded with other feeds, or because of --check; 2 when the settings are
    wrong or cannot be edited.

    \b
    collector markets add binance solusdt
    collector markets add okx SOL-USDT DOGE-USDT --feeds trades --check
    """
    from app.commands.settings import loaded
    from app.settings_editing import WORDS, added, default_feeds, recorded
    from app.settings_file import Edit, edit, editable

    found = loaded()
    file = editable(found)
    types, faults = (default_feeds(found.settings), []) if feeds is None else _types(feeds)
    wanted = _canonical(found.settings, exchange, symbols, *faults)
    if check:
        _check(found.settings, wanted)
    done: dict[str, list[Market]] = {}

    def change(text: str, settings: Settings) -> Edit:
        before = recorded(settings)
        held = {market: {feed for feed in WORDS if (market, feed) in before} for market in wanted}
        partly = [market for market, kept in held.items() if kept and not set(types) <= kept]
        if partly:
            for market in partly:
                words = ", ".join(WORDS[feed] for feed in sorted(held[market]))
                click.echo(f"{market} is recorded with {words} only; remove it, then add it with all feeds", err=True)
            sys.exit(1)
        new = done["added"] = [market for market in wanted if not held[market]]
        done["there"] = [market for market in wanted if held[market]]
        if new:
            text = added(text, settings, exchange, [market.symbol for market in new], types)
        return Edit(text, before | {(market, feed) for market in new for feed in types})

    _tell(str(file), *edit(file, change), done, as_json)


@markets.command()
@click.argument("exchange", shell_complete=completion.exchanges)
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...", shell_complete=completion.symbols)
@JSON
def remove(exchange: str, symbols: tuple[str, ...], as_json: bool) -> None:
    """Record SYMBOL... of EXCHANGE no longer: none of their feeds, in whichever [[markets]] they are.

    What was recorded stays, and is archived. A comment behind a symbol goes with it, all others stay. Exit code 1, and nothing
    changed, when one of the symbols is not recorded; 2 when the settings are wrong or cannot be edited.
    """
    from app.commands.settings import loaded
    from app.exchanges import exchange_of
    from app.pipeline.symbols import near
    from app.settings_editing import recorded, removed
    from app.settings_file import Edit, edit, editable

    found = loaded()
    file = editable(found)
    wanted = _canonical(found.settings, exchange, symbols)

    def change(text: str, settings: Settings) -> Edit:
        there = set(settings.all_markets())
        if missing := [market for market in wanted if market not in there]:
            for market in missing:
                known = [other.symbol for other in there if other.exchange == market.exchange]
                click.echo(f"{market} is not recorded; {near(market.symbol, known)}", err=True)
            sys.exit(1)
        venue = exchange_of(exchange, settings.exchanges[exchange].source)
        text = removed(text, settings, exchange, lambda symbol: Market(exchange, venue.canonical(symbol)) in wanted)
        return Edit(text, {(market, feed) for market, feed in recorded(settings) if market not in wanted})

    _tell(str(file), *edit(file, change), {"removed": wanted}, as_json)


def _canonical(settings: Settings, exchange: str, symbols: Iterable[str], *others: str) -> list[Market]:
    """Each market once, as the exchange spells it. Raises: SettingsError with every fault, and with `others`."""
    from app.exchanges import exchange_of
    from app.settings_reading import meant

    if exchange not in settings.exchanges:
        raise SettingsError(f"{exchange} is no known exchange; {meant(exchange, settings.exchanges)}", *others)
    venue = exchange_of(exchange, settings.exchanges[exchange].source)
    found: list[Market] = []
    faults = list(others)
    for symbol in symbols:
        try:
            found.append(Market(exchange, venue.canonical(symbol)))
        except SettingsError as error:
            faults += error.faults
    if faults:
        raise SettingsError(*faults)
    return list(dict.fromkeys(found))


def _types(feeds: str) -> tuple[tuple[str, ...], list[str]]:
    """Data types for the words of a user, and a fault for each word that is none."""
    from app.settings_reading import meant

    words = dict.fromkeys(word.strip() for word in feeds.split(","))
    faults = [f"--feeds: {word!r} is no feed; {meant(word, FEEDS)}" for word in words if word not in FEEDS]
    return tuple(FEEDS[word] for word in words if word in FEEDS), faults


def _check(settings: Settings, wanted: Sequence[Market]) -> None:
    from app.pipeline.symbols import findings
    from app.wiring import Wiring

    if found := list(findings(settings, wanted, Wiring(settings).budget)):
        for _, sentence in found:
            click.echo(f"{sentence}; nothing was changed", err=True)
        sys.exit(1)


def _tell(file: str, before: Settings, after: Settings, done: dict[str, list[Market]], as_json: bool) -> None:
    """What was done to which markets, and what it does to which streams."""
    from app.pipeline.plan import changes, planned

    streams = changes(planned(before), planned(after))._asdict()
    if as_json:
        named = {how: [str(market) for market in found] for how, found in done.items()}
        click.echo(json.dumps({"file": file, **named, "streams": streams}))
        return
    for how, found in done.items():
        for market in found:
            click.echo(f"{market} " + ("was there already" if how == "there" else f"{how}: {file}"))
    for how, names in streams.items():
        if names:
            click.echo(f"streams {how}: {', '.join(names)}")


def _short(states: dict[str, str]) -> str:
    """One word where all feeds agree."""
    agreed = set(states.values())
    return agreed.pop() if len(agreed) == 1 else ", ".join(f"{feed} {state}" for feed, state in states.items())


def _table(rows: list[tuple[str, ...]]) -> None:
    cells = [("EXCHANGE", "SYMBOL", "FEEDS", "STREAM", "STATE"), *rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
