"""`collector status`: the state of every connection and feed."""

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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: streams with their feeds, and totals.")
def status(as_json: bool) -> None:
    """Show every connection and feed: state, since when, age of the last data, and why.

    The answer comes from what the stream workers published in Redis in the last seconds; a stream that nobody runs is
    shown as `down`. Exit code 1 when a connection is down, failed or refused, or a feed is stale, halted or rejected.
    """
    wiring = wired()
    states = wiring.board.states(list(wiring.streams))
    rows = []
    for name, stream in wiring.streams.items():
        state = states.get(name)
        if state is None:
            why = "no stream worker has it"
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
    if as_json:
        click.echo(json.dumps({"feeds": rows, "streams": states, "total": len(rows), "bad": len(bad)}))
    else:
        _table(rows)
        click.echo(f"{len(rows)} feeds, {len(bad)} need a look")
    sys.exit(1 if bad else 0)


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
    cells = [("EXCHANGE", "SYMBOL", "FEED", "STATE", "SINCE (UTC)", "LAST DATA", "CONNECTION", "WHY")]
    for row in rows:
        since = row["since_us"]
        shown = datetime.fromtimestamp(since / 1e6, UTC).strftime("%m-%d %H:%M:%S") if since and since < now_us else "-"
        age = f"{row['age_s']:.1f} s ago" if row["age_s"] is not None else "never"
        cells.append(
            (row["exchange"], row["symbol"], row["feed"], row["state"], shown, age, row["connection"], row["why"])
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
    for line in cells:
        click.echo(
            "  ".join([*(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        )
