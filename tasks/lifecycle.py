"""What a worker process does around its tasks: logging, first steps, spools left behind. Its end is in stopping.py."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import signals
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.thread import TaskPool
from kombu.exceptions import OperationalError

from app import liveness, telemetry
from app.clock import monotonic_s, wall_us
from app.errors import BufferUnavailable
from app.log_files import process_type
from app.logs import configure
from app.pipeline import supervise
from app.pipeline.presence import Presence
from app.wiring import whoami
from tasks.stopping import STOP, on_stop
from tasks.wired import wiring

#: Which streams this process runs; on the board while it consumes the queue of streams.
PRESENCE = Presence(STOP, monotonic_s=monotonic_s, wall_us=wall_us)
on_stop.append(PRESENCE.woken.set)
#: Threads whose last words matter: `_keep_presence` where there is one, and `_report_counts`.
_keepers: list[threading.Thread] = []
_reporters: list[threading.Thread] = []
#: Set when nothing is counted any more.
_counted = threading.Event()
#: Spools that nobody will open again are looked for so often.
LEFT_SPOOLS_S = 10.0
#: What this process has counted goes to Redis so often, and once more at its end.
REPORT_S = 2.0


#: Node name of this process, where it is a worker.
_node = ["beat" if "beat" in sys.argv else ""]


@signals.celeryd_init.connect
def _named(sender: str, **_: Any) -> None:
    _node[0] = sender


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    """Celery configures no logging where this signal has a receiver; its own lines go through ours."""
    process = process_type(_node[0])
    log = configure(settings=wiring().settings, process=process)
    liveness.begin(process, lambda: {"log_lines_dropped": log.dropped})


if Path(sys.argv[0]).name in ("celery", "__main__.py") and "flower" in sys.argv:
    # Flower sends no such signal, and would print its own lines, and a traceback with whatever is in it, past us.
    _node[0] = "flower"
    _logging()


@signals.celeryd_after_setup.connect
def _pin(instance: Any, **_: Any) -> None:
    """A worker of streams alone keeps to its processor, one without streams keeps off it, and one that does all may
    use every one. Every thread there is; those that are made later have the processors of their maker."""
    cpu = wiring().settings.websocket.cpu_pin
    ours = {queue.name for queue in instance.app.conf.task_queues}  # beside the one that is the worker's own
    queues = ours & set(instance.app.amqp.queues.consume_from)
    if cpu < 0 or ("streams" in queues and len(queues) > 1):
        return
    failed: Exception | None = None
    chosen = {cpu}
    try:
        if "streams" not in queues:
            chosen = os.sched_getaffinity(0) - {cpu} or chosen
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), chosen)
    except (AttributeError, OSError) as error:  # not Linux; a processor that this process may not use
        failed = error
    telemetry.worker_pinned(sorted(chosen), failed)


@signals.worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    """Do not wait for the first beat: look for streams to start and segments to archive at once."""
    liveness.sources.append(_work)
    telemetry.worker_ready(str(sender.hostname), beat=bool(getattr(sender.controller, "beat", None)))
    threading.Thread(target=_drain_left_spools, name="left spools", daemon=True).start()
    threading.Thread(target=_follow_settings, args=(sender.app,), name="settings", daemon=True).start()
    if not isinstance(
        sender.pool, Prefork
    ):  # there its children count; one made later would go on with its parent's reporter
        _begin_counts()
    sender.app.send_task("archive.run", expires=60)
    # Streams in a prefork child would never hear the stop: such a worker is given none.
    if "streams" in sender.app.amqp.queues.consume_from and isinstance(sender.pool, TaskPool):
        keeper = threading.Thread(target=_keep_presence, args=(sender,), name="presence", daemon=True)
        keeper.start()
        _keepers.append(keeper)
    else:
        sender.app.send_task("streams.supervise", expires=10)


def _work() -> dict[str, object]:
    """For the line that says every minute that this process lives."""
    streams = PRESENCE.streams
    return {"streams": len(streams), "queue_bytes": wiring().allowance.held_bytes} if streams else {}


def _keep_presence(consumer: Any) -> None:
    """On the board while this worker takes streams; supervision hears of it, and of each stream that ends here."""

    def nudge() -> None:
        with suppress(OperationalError):  # the next beat does it
            consumer.app.send_task("streams.supervise", expires=5, retry=False)

    ttl_s = wiring().settings.buffer.lease_secs / 2
    name, threads = str(consumer.hostname), consumer.pool.limit
    PRESENCE.keep(wiring().board, name, whoami(), threads=threads, ttl_s=ttl_s, nudge=nudge)


@signals.worker_shutdown.connect
def _goodbye(**_: Any) -> None:
    """Every stream has ended; what supervision is to hear of it goes out before the process does."""
    _end_counts()
    if STOP.is_set():
        for thread in _keepers:
            thread.join(5)


def _drain_left_spools() -> None:
    """Every few seconds: what a stream left on this host, and nobody will open again, goes to Redis."""
    while not STOP.wait(LEFT_SPOOLS_S):
        try:
            supervise.drain_left_spools(wiring(), STOP)
        except (BufferUnavailable, OSError) as error:
            telemetry.push_failed("left spools", error)


@signals.worker_process_init.connect
def _begin_counts(**_: Any) -> None:
    """In the worker, and in each child where its pool has processes."""
    if not any(thread.is_alive() for thread in _reporters):  # the pool `solo` calls the worker its child
        _reporters[:] = [threading.Thread(target=_report_counts, name="counts", daemon=True)]
        _reporters[0].start()


@signals.worker_process_shutdown.connect
def _end_counts(**_: Any) -> None:
    _counted.set()
    for thread in _reporters:
        thread.join(5)


def _report_counts() -> None:
    """Until the streams and runs of this process have ended, which is later than STOP; then once more."""
    over = False
    while not over:
        over = _counted.wait(REPORT_S)
        wiring().report_counts()


def _follow_settings(app: Any) -> None:
    """A stream that is new in the settings does not wait for the next beat."""

    def changed() -> None:
        with suppress(OperationalError):
            app.send_task("streams.supervise", expires=10, retry=False)

    supervise.follow_settings(wiring(), STOP, changed)
