"""`collector drill`: strike an installation of its own, and see each promise kept or broken."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import click

from app.commands import completion


@click.command()
@click.option("--only", metavar="ROWS", shell_complete=completion.rows, help="Only these rows, as in K2,R3.")
@click.option(
    "--list", "list_", is_flag=True, help="List every row with its promise, and whether it is drilled, and exit."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object (docs/cli.md).")
@click.option(
    "--keep", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Use this empty directory and leave it. Default: one that goes when every promise was kept.",
)  # fmt: skip
def drill(only: str | None, list_: bool, as_json: bool, keep: Path | None) -> None:
    """Let the faults of docs/reliability.md happen for real, here and now, and see each promise kept or broken.

    In a scratch directory it starts what `collector run` starts, a Redis of its own and the built-in exchanges; your data and
    your settings are not touched. Then it kills, freezes, empties, cuts and floods, row by row, waits until everything is at
    work again, halts the exchanges, and accounts for every event they sent. It takes about five minutes.

    \b
    RECOVERED  seconds until it was at work again, and what is promised
    SENT       events that the exchanges sent meanwhile   STORED  in segments and objects
    AGAIN      duplicates, counted and not stored twice   LOST    declared losses

    Exit code 0 when every promise was kept, 1 when one was broken (the directory stays then), 2 when it cannot run.
    """
    from app.clock import monotonic_s
    from app.commands.progress import Progress
    from app.drill.catalogue import ROWS
    from app.drill.installation import Installation
    from app.drill.run import Drill, listed, table, unknown
    from app.errors import CollectorError
    from app.logs import configure

    if list_:
        click.echo("\n".join(listed()))
        return
    rows = [row.id for row in ROWS]
    if only:
        rows = [row.strip().upper() for row in only.split(",")]
        if faults := unknown(rows):
            raise click.BadParameter("; ".join(faults), param_hint="--only")
    configure("CRITICAL")
    began_s = monotonic_s()

    site = installed(Installation, keep, rate=5, seed=1)
    kept = False
    try:
        with Progress() as bar:
            bar("drill", 0, len(rows), "rows")
            report = Drill(
                site,
                set(rows),
                lambda text: bar.say(f"{monotonic_s() - began_s:4.0f} s  {text}"),
                lambda judged: bar("drill", judged, len(rows), "rows"),
            ).run()
        kept = report.kept
    except CollectorError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    finally:
        site.close()
        left(site.directory, keep, kept)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        click.echo("\n".join(table(report)))
    sys.exit(0 if kept else 1)


def say(text: str) -> None:
    click.echo(text, err=True)


def installed(kind: type[Any], keep: Path | None, *, rate: float, seed: int) -> Any:
    """An installation of this kind, that Ctrl-C ends. Raises: SettingsError."""
    directory = keep or Path(tempfile.mkdtemp(prefix="collector-drill-"))
    site = kind(directory, None, rate, lambda text: None, seed=seed)
    site.abort = threading.Event()

    def interrupted(*_: Any) -> None:
        site.abort.set()

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    say(f"settings, data and logs: {site.directory}")
    return site


def left(directory: Path, keep: Path | None, fine: bool) -> None:
    """Take a scratch directory away when nobody needs to look into it."""
    if keep is None and fine:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        say(f"everything is in {directory}")
