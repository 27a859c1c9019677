"""What a worker process does around its tasks: logging, first steps, spools left behind. Its end is in stopping.py."""

from __future__ import annotations

import threading
from typing import Any

from celery import signals

from app import telemetry
from app.errors import BufferUnavailable
from app.logs import configure
from app.pipeline import supervise
from tasks.stopping import STOP
from tasks.wired import wiring

#: Spools that nobody will open again are looked for so often.
LEFT_SPOOLS_S = 10.0


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    """Celery configures no logging where this signal has a receiver; its own lines go through ours."""
    configure()


@signals.worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    """Do not wait for the first beat: look for streams to start and segments to archive at once."""
    telemetry.worker_ready(str(sender.hostname), beat=bool(getattr(sender.controller, "beat", None)))
    threading.Thread(target=_drain_left_spools, name="left spools", daemon=True).start()
    sender.app.send_task("streams.supervise", expires=10)
    sender.app.send_task("archive.run", expires=60)


def _drain_left_spools() -> None:
    """Every few seconds: what a stream left on this host, and nobody will open again, goes to Redis."""
    while not STOP.wait(LEFT_SPOOLS_S):
        try:
            supervise.drain_left_spools(wiring(), STOP)
        except (BufferUnavailable, OSError) as error:
            telemetry.push_failed("left spools", error)
