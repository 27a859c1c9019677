"""`collector soak`: load, a fault every few seconds, and every event accounted for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="How long to collect.")
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    default=3000.0,
    show_default=True,
    help="Events a second, all venues together.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The same seed strikes the same faults in the same order."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object (docs/cli.md).")
@click.option(
    "--keep", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Use this empty directory and leave it. Default: one that goes when everything balances.",
)  # fmt: skip
def soak(minutes: float, rate: float, seed: int, as_json: bool, keep: Path | None) -> None:
    """Record the built-in exchanges under load while something breaks every 15 s; then prove the record complete.

    On an installation of its own, like `collector drill`: two stream workers, segments of 10 s, so that archiving and removal
    happen all the time. Lag and memory are printed as it goes. In the end the exchanges are halted, everything is drained and
    archived, every object is read again, and compared with what was sent, event by event: sent is archived, sent again, or
    declared; nothing stands twice, nothing was not sent.

    Exit code 0 when it balances, 1 with what differs (the directory stays then), 2 when it cannot run.
    """
    from app.commands.drill import installed, left
    from app.commands.progress import Progress
    from app.drill import soak as soaking
    from app.drill.installation import Installation
    from app.errors import CollectorError
    from app.logs import configure

    configure("CRITICAL")
    site = installed(Installation, keep, rate=rate / soaking.EVENTS_PER_RATE, seed=seed)
    balanced = False
    try:
        with Progress() as bar:
            whole_s = int(minutes * 60)
            result = soaking.soak(
                site, minutes * 60, seed, bar.say, lambda now_s: bar("collecting", int(now_s), whole_s, "s")
            )
        balanced = not result.differences
    except CollectorError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    finally:
        site.close()
        left(site.directory, keep, balanced)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        t = result.total
        click.echo(
            f"{t.sent:,} events sent, {result.archived:,} archived and read again, {t.duplicates:,} sent again,"
            f" {t.explained:,} inside losses and gaps ({t.lost:,} declared, {t.unknown_losses:,} of unknown extent),"
            f" {t.unread:,} unread at the end of broken connections, {t.refetched:,} asked for later;"
            f" {len(result.strikes)} faults"
        )
        for d in result.differences[:20]:
            click.echo(f"{d.what}: {d.where}: {d.why}")
        click.echo("balanced" if balanced else f"NOT balanced: {len(result.differences)} differences")
    sys.exit(0 if balanced else 1)
