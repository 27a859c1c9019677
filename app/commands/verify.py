"""`collector verify`: read the archive again."""

from __future__ import annotations

import json
import sys

import click

from app.commands.settings import wired
from app.pipeline.verify import VerifyReport
from app.pipeline.verify import verify as verify_objects


@click.command()
@click.argument("prefix", default="")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def verify(prefix: str, as_json: bool) -> None:
    """Read objects and manifests again and say what is wrong.

    PREFIX narrows it, as in `binance/btcusdt/`. Every object is read whole and hashed; nothing is believed that was
    written down earlier. Exit code 0 when all is right, 1 with one line for each fault.
    """
    wiring = wired()

    def progress(report: VerifyReport) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{report.objects} objects, {report.rows} rows", nl=False, err=True)

    report = verify_objects(wiring.store, wiring.ledger, prefix=prefix, progress=progress)
    if sys.stderr.isatty():
        click.echo(err=True)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        for fault in report.faults:
            click.echo(f"{fault.key}: {fault.fault}")
        click.echo(
            f"{report.verified} of {report.objects} objects verified, {report.rows} rows, {len(report.faults)} faults"
        )
    sys.exit(1 if report.faults else 0)
