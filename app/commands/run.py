"""`collector run`: the whole collector on this machine, on the real exchanges."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import click

from app.errors import CollectorError


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of /health and /metrics; default: [collector] metrics_port."
)
@click.option("--flower-port", type=click.IntRange(1, 65535), default=5555, show_default=True, help="Port of Flower.")
@click.option(
    "--exporter-port",
    type=click.IntRange(1, 65535),
    default=9808,
    show_default=True,
    help="Port of the Celery exporter.",
)
def run(port: int | None, flower_port: int, exporter_port: int) -> None:
    """Record the configured markets with every process type, on this machine, until Ctrl-C.

    Where [redis] url is not set, a Redis of its own is started with its files beside the database. Ctrl-C or SIGTERM
    drains: sockets are closed, what was received goes to SQLite, nothing is lost by stopping. A process that dies is
    started again. Exit code 0 after a clean stop.
    """
    from app.commands.settings import loaded
    from app.launch.run import Machine

    stop = threading.Event()

    def interrupted(*_: Any) -> None:
        stop.set()

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    found = loaded()
    machine = Machine(found, os.environ, lambda text: click.echo(text, err=True))
    try:
        machine.start(port or found.settings.collector.metrics_port, flower_port, exporter_port)
        machine.watch(stop)
    except CollectorError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    finally:
        machine.stop()
