"""`collector repair`: fetch what is missing now, once, in the foreground."""

from __future__ import annotations

import json
import sys
import threading

import click

from app.commands.gaps import one_market
from app.commands.settings import wired
from app.pipeline import periodic

#: By hand there is time: for a venue's budget, and for a long gap.
DEADLINE_S = 3600.0


@click.command()
@one_market
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/cli.md).")
def repair(market: str | None, dry_run: bool, as_json: bool) -> None:
    """Judge where one connection ended and the next began, and fetch missing trades over REST.

    A worker does this every 10 s; use it when none runs, or to try at once what is left alone for a while. What is
    fetched goes through Redis like all data and is stored by the next flush; the run after that puts the verdict on
    record (`collector gaps`). Exit code 1 when a venue could not be asked, or another run is going on.
    """
    wiring = wired()
    if dry_run:
        missing = [one.says() for one in wiring.repairs.search.missing(market) if not one.given_up]
        if as_json:
            click.echo(json.dumps({"missing": missing}))
        else:
            for one in missing:
                click.echo(f"{one['market']}: {one['missing']}" + (f" ({one['size']} trades)" if one["size"] else ""))
            click.echo(f"{len(missing)} to be fetched")
        return
    report = periodic.repair(wiring, threading.Event(), deadline_s=DEADLINE_S, market=market, patient=False)
    wiring.report_counts()
    if as_json:
        click.echo(json.dumps(report))
    elif not report.get("skipped"):
        for settled in report["closed"]:  # type: ignore[attr-defined]
            click.echo(
                f"{settled['market']} {settled['from_id'] or ''}: {settled['state']} {settled['detail']}".rstrip()
            )
        for name, why in report["failed"].items():  # type: ignore[attr-defined]
            click.echo(f"{name}: {why}", err=True)
        click.echo(
            f"{report['judged']} seams judged, {report['fetched']} trades fetched in {report['requests']} requests"
        )
        if report["waiting"]:
            click.echo(f"left until the next flush: {', '.join(report['waiting'])}")  # type: ignore[arg-type]
    else:
        click.echo(str(report["skipped"]), err=True)
    sys.exit(1 if report.get("skipped") or report.get("failed") else 0)
