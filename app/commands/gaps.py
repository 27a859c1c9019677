"""`collector gaps`: what the venues did not send us, and what became of it."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec

from app.clock import wall_us
from app.codec import BatchCodec, ElementRejected
from app.commands import completion
from app.commands.settings import wired
from app.errors import BufferUnavailable
from app.exchanges import EXCHANGES
from app.model import FEEDS
from app.pipeline.gaps import REFETCH, STATES, UNKNOWABLE, states, unknowable
from app.pipeline.seams import SEAM
from app.wiring import Wiring

_AGO = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Moment(click.ParamType[int]):
    """Microseconds since the Unix epoch of a time in UTC, or of so long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if ago := _AGO.fullmatch(value):
            return wall_us() - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 2026-11-21T14:00 (UTC), or 90s, 15m, 6h, 2d for so long ago")
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def market_option(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """EXCHANGE/SYMBOL in the exchange's own spelling. Raises: click.BadParameter, SettingsError."""
    if value is None:
        return None
    exchange, _, symbol = value.partition("/")
    if exchange not in EXCHANGES or not symbol:
        raise click.BadParameter(f"{value!r} is not EXCHANGE/SYMBOL; exchanges are {', '.join(EXCHANGES)}")
    return f"{exchange}/{EXCHANGES[exchange].canonical(symbol)}"


one_market = click.option(
    "--market",
    metavar="EXCHANGE/SYMBOL",
    callback=market_option,
    shell_complete=completion.markets,
    help="Only this market.",
)


@click.command()
@one_market
@click.option("--feed", type=click.Choice(tuple(FEEDS)), help="Only books, or only trades.")
@click.option("--since", type=Moment(), help="Only what ended at this time (UTC) or later, or 90s, 15m, 6h, 2d ago.")
@click.option("--until", type=Moment(), help="Only what began before.")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/cli.md).")
def gaps(
    market: str | None, feed: str | None, since: int | None, until: int | None, state: str | None, as_json: bool
) -> None:
    """List what is missing, the oldest first: holes in the venues' numbers, and seams of which nothing can be told.

    \b
    open          trades that will be asked for over REST
    partly        some of them came; the detail says which remain
    repaired      all of them are stored
    unrepairable  they cannot be had; the detail says why, in the venue's words
    unknowable    one connection ended, the next began, and the venue's ids cannot tell what came between

    Everything is looked at: what waits in Redis, the segments, the ledger. Exit code 0, gaps or none.
    """
    wiring = wired()
    found = [
        row
        for row in listing(wiring, since or 0)
        if market in (None, row["market"])
        and (feed is None or row["feed"] == FEEDS[feed])
        and (since is None or row["after_us"] >= since)
        and (until is None or row["before_us"] < until)
        and state in (None, row["state"])
    ]
    totals = {name: sum(row["state"] == name for row in found) for name in STATES}
    if as_json:
        click.echo(json.dumps({"gaps": found, "totals": totals}))
        return
    _table(found)
    click.echo(", ".join(f"{count} {name}" for name, count in totals.items() if count) or "no gaps")


def listing(wiring: Wiring, since_us: int = 0) -> list[dict[str, Any]]:
    """Gaps and unknowable seams that ended at `since_us` or later, as `--json` shows them (docs/cli.md), by that time."""
    waiting = _waiting(wiring)  # before the files: what is flushed meanwhile is seen at least once
    stored = wiring.stored
    ended = "end_us", since_us
    known = {
        "gaps": stored.records("gaps", since=("after_us", since_us)),
        "repairs": stored.records("repairs", since=("found_us", since_us)),
        "checks": [
            *stored.records("checks", since=ended, kind=SEAM, verdict=UNKNOWABLE),
            *stored.records("checks", since=ended, kind=REFETCH),
        ],
    }
    rows = {name: _united(name, waiting[name], found) for name, found in known.items()}
    found = [
        {
            "market": f"{gap['exchange']}/{gap['symbol']}", "feed": gap["feed"], "from_id": gap["from_id"],
            "to_id": gap["to_id"], "size": gap["size"], "before_us": gap["before_us"], "after_us": gap["after_us"],
            "cause": gap["cause"], "state": gap["state"], "found": gap["found"], "detail": gap["detail"],
            "epoch": gap["epoch"], "number": gap["number"],
        }
        for gap in states(rows["gaps"], rows["repairs"])
    ]  # fmt: skip
    found += [
        {
            "market": f"{check['exchange']}/{check['symbol']}", "feed": check["feed"], "from_id": None, "to_id": None,
            "size": None, "before_us": check["start_us"], "after_us": check["end_us"], "cause": "seam",
            "state": UNKNOWABLE, "found": 0, "detail": check["why"], "epoch": check["epoch"], "number": None,
        }
        for check in unknowable(rows["checks"])
    ]  # fmt: skip
    return sorted(found, key=lambda row: (row["after_us"], row["market"], row["feed"]))


def _waiting(wiring: Wiring) -> dict[str, list[dict[str, Any]]]:
    """Gaps, repairs and checks of all batches that wait in Redis."""
    found: dict[str, list[dict[str, Any]]] = {"gaps": [], "repairs": [], "checks": []}
    codec = BatchCodec()
    try:
        for depth in wiring.buffer.depths():
            for element in wiring.buffer.waiting(depth.stream):
                try:
                    batch = codec.decode(element)
                except ElementRejected:
                    continue  # the flush puts it into quarantine
                for name, records in found.items():
                    about = {"exchange": batch.exchange, "epoch": batch.epoch}
                    records += [about | msgspec.structs.asdict(record) for record in getattr(batch, name)]
    except BufferUnavailable as error:
        click.echo(f"warning: what waits in Redis is not in here: {error}", err=True)
    return found


def _united(name: str, waiting: list[dict[str, Any]], stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = {
        "gaps": ("epoch", "symbol", "feed", "number"),
        "repairs": ("epoch", "symbol", "feed", "number", "found_us"),
        "checks": ("exchange", "symbol", "feed", "kind", "start_us", "checked_us"),
    }[name]
    return list({tuple(row[key] for key in keys): row for row in [*waiting, *stored]}.values())


def _table(rows: list[dict[str, Any]]) -> None:
    cells = [("MARKET", "FEED", "FROM", "TO", "SIZE", "LAST BEFORE (UTC)", "FIRST AFTER", "CAUSE", "STATE", "DETAIL")]
    known = {feed: name for name, feed in FEEDS.items()}
    for row in rows:
        before, after = (datetime.fromtimestamp(row[key] / 1e6, UTC) for key in ("before_us", "after_us"))
        cells.append(
            (
                row["market"], known.get(row["feed"], row["feed"]), row["from_id"] or "-", row["to_id"] or "-",
                "-" if row["size"] is None else str(row["size"]), f"{before:%Y-%m-%d %H:%M:%S}.{before.microsecond // 1000:03}",
                f"{after:%H:%M:%S}.{after.microsecond // 1000:03}", row["cause"], row["state"], row["detail"],
            )
        )  # fmt: skip
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells if rows else []:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    sys.stdout.flush()
