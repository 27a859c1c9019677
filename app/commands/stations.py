"""`collector flush` and `collector archive`: run a station now, once, in the foreground."""

from __future__ import annotations

import json
import sys
import threading

import click

from app.commands.progress import Progress
from app.commands.settings import wired
from app.pipeline import periodic
from app.pipeline.room import FULL
from app.pipeline.supervise import drain_spools
from app.store.ledger import REMOVED, SEALED, VERIFIED
from app.wiring import Wiring

#: Books that are not judged by then stay without a verdict: moving house does not wait for them.
LAST_VERDICTS_S = 120.0
#: What the archive says when an object is proved.
VERIFIED_STEP = "archive.after_verified"


@click.command()
@click.option("--final", is_flag=True, help="Also drain the spools of this host and seal the open segment.")
def flush(final: bool) -> None:
    """Empty the Redis lists into SQLite now, once, and print what happened as JSON.

    Beat does this every [collector] batch_interval_secs; use it before maintenance, or when beat is down. Exit code 1
    when another flush is going on, a claim stayed in Redis or the disk is too full to take one.
    """
    wiring = wired()
    drained = drain_spools(wiring) if final else True
    report = periodic.flush(wiring, threading.Event(), deadline_s=None, seal=final)
    wiring.report_counts()
    click.echo(json.dumps({**report, "spools_empty": drained} if final else report))
    full = (report.get("room") or {}).get("level") == FULL  # type: ignore[attr-defined]
    sys.exit(1 if report.get("skipped") or report.get("failed") or full or not drained else 0)


@click.command()
@click.option("--final", is_flag=True, help="Flush and seal first, and leave no segment behind: before moving house.")
def archive(final: bool) -> None:
    """Write sealed segments to the object store now, prove them, remove them, and print what happened as JSON.

    Beat does this every [collector] archive_interval_secs. Nothing local is removed before its bytes in the store are
    proved equal. Safe to interrupt and to repeat. Exit code 1 when something stays for the next run.
    """

    def step(name: str) -> None:
        if name == VERIFIED_STEP and progress.shown:
            progress("archive", rows - _to_archive(wiring), rows, "rows")

    wiring = wired(step=step)
    stop = threading.Event()
    if final:
        drained = drain_spools(wiring)
        flushed = periodic.flush(wiring, stop, deadline_s=None)
        if not flushed.get("skipped"):  # the last verdicts on books need rows that are still here
            periodic.certify(wiring, stop, deadline_s=LAST_VERDICTS_S, final=True)
            flushed = periodic.flush(wiring, stop, deadline_s=None, seal=True)
        if flushed.get("skipped") or flushed.get("failed"):
            wiring.report_counts()
            click.echo(json.dumps({"flush": flushed}))
            sys.exit(1)
    with Progress() as progress:
        rows = _to_archive(wiring) if progress.shown else 0
        report = periodic.archive(wiring, stop, final=final)
    wiring.report_counts()
    left: dict[str, object] = {}
    if final:
        segments = [entry.number for entry in wiring.ledger.segments() if entry.state != REMOVED]
        lists = [depth.stream for depth in wiring.buffer.depths()]
        left = {"spools": not drained, "lists": lists, "segments": segments}
        report["left"] = left
    click.echo(json.dumps(report))
    unfinished = report.get("skipped") or report.get("failed") or report.get("timed_out") or any(left.values())
    sys.exit(1 if unfinished else 0)


def _to_archive(wiring: Wiring) -> int:
    """Rows of sealed segments that are not proved yet, once for each store they go to."""
    entries = wiring.ledger.segments(SEALED)
    proved = sum(one.rows for e in entries for one in wiring.ledger.objects(e.number) if one.state == VERIFIED)
    return max(0, len(wiring.stores) * sum(entry.rows or 0 for entry in entries) - proved)
