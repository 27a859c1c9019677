"""`collector demo`: rehearse with the built-in exchanges."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from app.errors import CollectorError


@click.command()
@click.option("--duration", type=click.FloatRange(min=1), help="Collect for so many seconds, then finish and account.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), help="Empty directory for all files.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of /health and /metrics; default: a free one.")
@click.option(
    "--rate", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Frames a second and feed."
)
@click.option(
    "--at-least", type=int, default=3000, show_default=True, help="Events that must come in with --duration 60."
)
def demo(duration: float | None, directory: Path | None, port: int | None, rate: float, at_least: int) -> None:
    """Rehearse: five built-in exchanges, every process type, real Redis, SQLite and Parquet, on this machine alone.

    Goes on until Ctrl-C; with --duration it stops by itself. Then it stops the exchanges and the streams, flushes, seals,
    archives, reads every object again, and prints as its last line one JSON object with what came in and what became of
    it. Exit code 0 only if every event the exchanges sent is in the archive exactly once. A second Ctrl-C aborts.
    """
    from app.commands.audit import table
    from app.launch.demo import Demo
    from app.logs import configure

    configure("WARNING")
    stop, abort = threading.Event(), threading.Event()

    def interrupted(*_: Any) -> None:
        (abort if stop.is_set() else stop).set()

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)

    def say(text: str) -> None:
        click.echo(text, err=True)

    rehearsal = Demo(directory, port, rate, say)
    try:
        rehearsal.start()
        rehearsal.wait(duration, stop)
        stop.set()
        result = rehearsal.finish(abort)
    except CollectorError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    finally:
        rehearsal.close()
    if duration is not None and result.figures["received"] < (needed := int(at_least * min(1.0, duration / 60))):
        result.faults.append(f"{result.figures['received']} events received; at least {needed} were expected")
    for line in table(result.audit):
        say(line)
    for fault in result.faults:
        say(f"fault: {fault}")
    say(f"objects: {rehearsal.directory}/objects")
    click.echo(json.dumps(result.figures))
    sys.exit(1 if result.faults else 0)
