"""`collector audit`: prove that everything received is somewhere, or declared."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from app.commands import completion
from app.commands.progress import Progress
from app.commands.settings import wired
from app.model import Market
from app.pipeline.audit import Audit
from app.pipeline.audit import audit as audit_all

#: Differences that are shown to people; `--json` has them all.
SHOWN = 20
COLUMNS = (
    "received", "spool", "redis", "segments", "archived", "duplicates", "quarantined", "lost", "unknown_losses", "holes",
)  # fmt: skip


@click.command()
@click.option("--deep", is_flag=True, help="Read every object whole, and count the rows of each connection.")
@click.option(
    "--sent", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Compare with what `collector exchange-server --sent FILE` wrote. May be given several times.",
)  # fmt: skip
@click.option(
    "--market", metavar="EXCHANGE/SYMBOL", shell_complete=completion.markets,
    help="Only this market, as in binance/btcusdt.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object (docs/cli.md).")
def audit(deep: bool, sent: tuple[Path, ...], market: str | None, as_json: bool) -> None:
    """Prove that what was received is in the spool, in Redis, in a segment, archived, a counted duplicate, quarantined or
    declared lost: every number of every connection in exactly one of these.

    Rows are counted now and numbers united from what every station says; nothing is believed that was counted in memory.
    It changes nothing and may run at any time. Spools of other hosts are named, not seen.

    \b
    received     numbered at receipt: what each connection said at its end, or the highest number on record
    spool        waits on this host's disk            redis        waits in a list
    segments     stored, not yet archived             archived     its object is proved to be in the store
    duplicates   the same event was stored before     quarantined  kept, but not as what it claims to be
    lost         declared, with market, time, cause   unknown      losses whose extent nobody knows
    holes        none of these: what must not be

    Exit code 0 when all is accounted for, 1 with what differs, where and why, 2 when a station cannot be asked.
    """
    wiring = wired()
    chosen = None
    if market is not None:
        exchange, _, symbol = market.partition("/")
        if not exchange or not symbol:
            raise click.BadParameter("a market is EXCHANGE/SYMBOL, as in binance/btcusdt", param_hint="--market")
        chosen = Market(exchange, symbol)

    with Progress() as progress:
        found = audit_all(wiring, market=chosen, deep=deep, sent=sent, progress=progress)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        for line in table(found):
            click.echo(line)
    sys.exit(0 if found.balanced else 1)


def table(found: Audit) -> list[str]:
    """The balance for people: a line for each market and feed, totals, what differs, and the verdict."""
    titles = ("EXCHANGE", "SYMBOL", "FEED", *(name.removesuffix("_losses").upper() for name in COLUMNS))
    rows = [(b.exchange, b.symbol, b.feed, *(f"{getattr(b, name):,}" for name in COLUMNS)) for b in found.balances]
    totals = found.totals()
    rows.append(("total", "", "", *(f"{totals[name]:,}" for name in COLUMNS)))
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    lines = [
        "  ".join(f"{cell:<{width}}" if column < 3 else f"{cell:>{width}}" for column, (cell, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in (titles, *rows)
    ]  # fmt: skip
    notes = []
    if totals["replays"]:
        notes.append(f"{totals['replays']:,} came again in batches that were pushed twice")
    if found.epochs_open:
        notes.append(f"{len(found.epochs_open)} connections have no end yet")
    notes += [f"not visible here: {what}" for what in found.not_visible]
    if found.deep is not None:
        notes.append(f"{found.deep.verified:,} of {found.deep.objects:,} objects read whole, {found.deep.rows:,} rows")
    if found.sent is not None:
        s = found.sent
        notes.append(
            f"{s.sent:,} events sent, {s.held:,} held; {s.repeated:,} sent again, {s.explained:,} explained by losses, gaps"
            f" or quarantine, {s.unread:,} unread at the end of a connection, {s.refetched:,} refetched, {s.missing:,} missing"
        )
    lines += ["", *notes] if notes else [""]
    lines += [f"{d.what}: {d.where}: {d.why}" for d in found.differences[:SHOWN]]
    if (more := len(found.differences) - SHOWN) > 0:
        lines.append(f"and {more:,} more (--json)")
    return [*lines, verdict(found)]


def verdict(found: Audit) -> str:
    """One sentence."""
    if found.balanced:
        unknown = found.totals()["unknown_losses"]
        but = f"; {unknown} declared losses are of unknown extent" if unknown else ""
        return f"balanced: each of {found.totals()['received']:,} received events is accounted for{but}"
    return f"NOT balanced: {len(found.differences)} differences"
