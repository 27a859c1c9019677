"""`collector repair-ledger`: the ledger rebuilt from segments, manifests and its copy."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from app.commands.settings import wired
from app.pipeline import periodic


@click.command("repair-ledger")
@click.option("--dry-run", is_flag=True, help="Only say what differs; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def repair_ledger(dry_run: bool, as_json: bool) -> None:
    """Rebuild the ledger ([database] path) when it is gone or damaged, or say how it differs from the data.

    Everything is asked: what can be read of the ledger, its copy (made after each archive cycle that removed a segment),
    the segments, and every manifest in the store. The ledger that was there is kept as `<path>.corrupt-<time>`. Segments
    whose objects are not proved are proved again by the next archive cycle. Running it again changes nothing.

    Refuses while processes run: stop them first. Exit code 0 when nothing differs or all was put right, 1 when something
    differs (--dry-run) or does not fit together, 2 when it cannot be done.
    """
    report = periodic.repair_ledger(wired(), dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({**asdict(report), "differs": report.differs}))
    else:
        if report.fault:
            click.echo(f"the ledger is {report.fault if report.fault == 'gone' else 'damaged: ' + report.fault}")
        copy = "its copy" if report.had_backup else "no copy"
        click.echo(f"looked at {report.segment_files} segments, {report.manifests} manifests, and {copy}")
        for name, rows in report.added.items():
            click.echo(f"{name}: {rows} rows {'would be' if dry_run else 'were'} put right")
        for finding in report.findings:
            click.echo(finding)
        click.echo(
            "replaced" if report.replaced else "differs, nothing was changed" if report.differs else "nothing differs"
        )
    sys.exit(1 if report.findings or (report.differs and not report.replaced) else 0)
