"""What a worker process does around its tasks: logging, the stop flag, the watchdog."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

from celery import signals
from kombu.exceptions import OperationalError

from app import telemetry
from app.errors import BufferUnavailable
from app.logs import configure
from app.pipeline import supervise
from tasks.wired import wiring

#: Set when this process is to end; every stream and every long run looks at it.
STOP = threading.Event()
#: Neither Celery nor a thread pool ever gives up waiting for a thread; a platform kills after 30 s. So do we, before.
WATCHDOG_S = 28.0
#: Spools that nobody will open again are looked for so often.
LEFT_SPOOLS_S = 10.0


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    """Celery configures no logging where this signal has a receiver; its own lines go through ours."""
    configure()


@signals.worker_shutting_down.connect
def _stop(**_: Any) -> None:
    """Runs inside a signal handler: set the flag, start the watchdog, nothing else."""
    STOP.set()
    timer = threading.Timer(WATCHDOG_S, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


@signals.worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    """Do not wait for the first beat: look for streams to start and segments to archive at once."""
    telemetry.worker_ready(str(sender.hostname), beat=bool(getattr(sender.controller, "beat", None)))
    threading.Thread(target=_drain_left_spools, name="left spools", daemon=True).start()
    threading.Thread(target=_follow_settings, args=(sender.app,), name="settings", daemon=True).start()
    sender.app.send_task("streams.supervise", expires=10)
    sender.app.send_task("archive.run", expires=60)


def _drain_left_spools() -> None:
    """Every few seconds: what a stream left on this host, and nobody will open again, goes to Redis."""
    while not STOP.wait(LEFT_SPOOLS_S):
        try:
            supervise.drain_left_spools(wiring())
        except (BufferUnavailable, OSError) as error:
            telemetry.push_failed("left spools", error)


def _follow_settings(app: Any) -> None:
    """A stream that is new in the settings does not wait for the next beat."""

    def changed() -> None:
        with suppress(OperationalError):
            app.send_task("streams.supervise", expires=10, retry=False)

    supervise.follow_settings(wiring(), STOP, changed)
