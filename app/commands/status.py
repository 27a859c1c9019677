"""`collector status`: the state of every connection and feed, and which stream worker has which."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

from app.clock import wall_us
from app.commands.settings import wired

#: States of a feed, and of a connection, that may need a person.
BAD = {"stale", "halted", "rejected"}
BAD_CONNECTIONS = {"down", "failed", "refused", "rate_limited"}


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object: feeds, streams, workers, troubles, totals."
)
def status(as_json: bool) -> None:
    """Show every connection and feed: state, since when, age of the last data, and why; then the stream workers.

    The answer comes from what the stream workers published in Redis in the last seconds; a stream that nobody runs is
    shown as `down`. Workers share the streams equally: one that joins is given its part after some seconds.

    What keeps flush, archive or a spool from its work (a disk that is full, read-only or broken, a store that refuses) is
    named below; a disk that is 80 % full is a warning.

    Exit code 1 when a connection is down, failed or refused, a feed is stale, halted or rejected, or something is degraded.
    """
    wiring = wired()
    states = wiring.board.states(list(wiring.streams))
    workers = wiring.board.workers()
    rows = []
    for name, stream in wiring.streams.items():
        state = states.get(name)
        if state is None:
            full = workers and all(len(told["streams"]) >= told["threads"] for told in workers.values())
            why = "no stream worker has a free thread" if full else "no stream worker has it"
            for symbol in stream.subscription.symbols:
                for feed in stream.subscription.feeds:
                    rows.append(_row(name, stream.exchange, symbol, feed, "down", "down", None, None, why))
            continue
        for feed_state in state["feeds"] or _not_yet(stream):
            rows.append(
                _row(
                    name, stream.exchange, feed_state["symbol"], feed_state["feed"], state["connection"],
                    feed_state["state"], feed_state["since_us"], feed_state["age_s"], feed_state["why"] or state["why"],
                )
            )  # fmt: skip
    bad = [row for row in rows if row["state"] in BAD or row["connection"] in BAD_CONNECTIONS]
    troubles = {**wiring.board.troubles(), **_refusals(states)}
    degraded = [name for name, told in troubles.items() if told["level"] == "degraded"]
    if as_json:
        told = {
            "feeds": rows, "streams": states, "workers": workers, "troubles": troubles, "total": len(rows), "bad": len(bad),
        }  # fmt: skip
        click.echo(json.dumps(told))
    else:
        _table(rows)
        _workers(workers)
        for name, trouble in troubles.items():
            since = f" since {_time(trouble['since_us'])} UTC" if "since_us" in trouble else ""
            click.echo(f"{trouble['level']}{since}: {name}: {trouble['detail']}")
        click.echo(f"{len(rows)} feeds, {len(bad)} need a look")
    sys.exit(1 if bad or degraded else 0)


def _refusals(states: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spools that take nothing while Redis takes nothing either, as notices."""
    return {
        f"spool of {name}": {"level": "degraded", "detail": state["spool_refusal"]}
        for name, state in states.items()
        if state.get("spool_refusal")
    }


def _not_yet(stream: Any) -> list[dict[str, Any]]:
    """Feeds of a stream whose first connection has not come about."""
    return [
        {"symbol": symbol, "feed": feed, "state": "subscribing", "since_us": None, "age_s": None, "why": ""}
        for symbol in stream.subscription.symbols
        for feed in stream.subscription.feeds
    ]


def _row(
    stream: str, exchange: str, symbol: str, feed: str, connection: str, state: str, since_us: int | None,
    age_s: float | None, why: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "stream": stream, "exchange": exchange, "symbol": symbol, "feed": feed, "connection": connection, "state": state,
        "since_us": since_us, "age_s": age_s, "why": why,
    }  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> None:
    now_us = wall_us()
    cells: list[tuple[str, ...]] = [
        ("EXCHANGE", "SYMBOL", "FEED", "STATE", "SINCE (UTC)", "LAST DATA", "CONNECTION", "WHY")
    ]
    for row in rows:
        since = row["since_us"]
        shown = _time(since) if since and since < now_us else "-"
        age = f"{row['age_s']:.1f} s ago" if row["age_s"] is not None else "never"
        cells.append(
            (row["exchange"], row["symbol"], row["feed"], row["state"], shown, age, row["connection"], row["why"])
        )
    _echo(cells)


def _workers(workers: dict[str, dict[str, Any]]) -> None:
    """Every stream worker on the board, with its streams; nothing where there is none."""
    if not workers:
        return
    cells: list[tuple[str, ...]] = [("WORKER", "SINCE (UTC)", "FREE", "STREAMS")]
    for name, told in workers.items():
        streams = told["streams"]
        failing = "a stream failed here lately; " if told["failing"] else ""
        runs = f"{failing}{len(streams)}: {', '.join(streams)}" if streams else f"{failing}0"
        cells.append((name, _time(told["since_us"]), str(told["threads"] - len(streams)), runs))
    click.echo()
    _echo(cells)


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%m-%d %H:%M:%S")


def _echo(cells: list[tuple[str, ...]]) -> None:
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
    for line in cells:
        click.echo(
            "  ".join([*(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        )
