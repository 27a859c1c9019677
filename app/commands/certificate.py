"""`collector certificate`: how complete an hour of one market is, by everything that is known now."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import click
import msgspec

from app.commands import completion
from app.commands.settings import wired
from app.model import Market
from app.pipeline.certificate import Certificate, certificates

HOUR = timedelta(hours=1)


class _MarketName(click.ParamType[Market]):
    name = "EXCHANGE/SYMBOL"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Market:
        exchange, slash, symbol = str(value).partition("/")
        if not (exchange and slash and symbol) or "/" in symbol:
            self.fail(f"{value!r} is no market; write EXCHANGE/SYMBOL, such as binance/btcusdt", param, ctx)
        return Market(exchange, symbol)


@click.command()
@click.option(
    "--market", required=True, type=_MarketName(), shell_complete=completion.markets, help="Such as binance/btcusdt."
)
@click.option(
    "--hour", required=True, type=click.DateTime(["%Y-%m-%dT%H", "%Y-%m-%dT%H:%M"]), help="UTC, such as 2026-11-21T14."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every record.")
def certificate(market: Market, hour: datetime, as_json: bool) -> None:
    """Say how complete the record of one market and hour is, as it stands now.

    The manifest of an object says what was known when its segment was archived. Repairs, verdicts on books and losses are often
    found later: they are read from the ledger and the segments, or, where this is not the machine that recorded, from
    the manifests that followed. One line for each object; 1.0 only where nothing can be missing between the first row
    and the last; `unknowable` where the venue numbers nothing, or what is missing cannot be counted, each with its reasons.

    Exit code 0 when everything is complete, 1 when something is missing, unknowable or not there.
    """
    wiring = wired()
    start = hour.replace(tzinfo=UTC)
    start_us, end_us = (int(at.timestamp()) * 1_000_000 for at in (start, start + HOUR))
    found = certificates(wiring.store, wiring.ledger, wiring.settings.storage.segments_path, market, start_us, end_us)
    if as_json:
        click.echo(
            json.dumps({"market": str(market), "hour": f"{start:%Y-%m-%dT%H:%M}Z", "objects": [*map(_told, found)]})
        )
    elif not found:
        click.echo(f"no object of {market} in that hour: not recorded, or not archived yet (collector archive)")
    else:
        for one in found:
            _print(one)
    sys.exit(0 if found and all(one.now.completeness == 1.0 for one in found) else 1)


def _told(one: Certificate) -> dict[str, object]:
    return {
        "completeness_at_sealing": one.at_sealing.completeness,
        "findings_from": one.findings,
        **msgspec.to_builtins(one.now),
    }


def _print(one: Certificate) -> None:
    now, then = one.now, one.at_sealing
    value = "unknowable" if now.completeness is None else f"{now.completeness:.9f}".rstrip("0").ljust(3, "0")
    gaps = sum(gap.repair != "repaired" for gap in now.gaps)
    click.echo(
        f"{now.data_type:<9}  {value:<11}  {now.rows} rows, {now.duplicates} duplicates, {gaps} open of {len(now.gaps)} gaps,"
        f" {len(now.losses)} losses, {len(now.checks)} checks  {now.key}"
    )
    for reason in now.completeness_reasons:
        click.echo(f"           {reason}")
    if now.completeness != then.completeness:
        before = "unknowable" if then.completeness is None else f"{then.completeness:.9f}"
        click.echo(f"           when it was archived: {before}; findings since then are from the {one.findings}")
