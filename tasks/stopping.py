"""The end of a worker process: told by a signal, bounded by deadlines, enforced by a watchdog.

Neither Celery nor a thread pool ever gives up waiting for a thread, and a platform kills after 30 s. From the signal on:

    at once   STOP: streams say goodbye and push or spool what they have (10 s), a flush ends before its next claim, an
              archive cycle at its next step or chunk of rows
    3 s       ABORT: no answer of a store is waited for any more
    28 s      the process ends with code 1, and a line that names every thread that is still there and where it is
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from celery import bootsteps, signals

from app import logs, telemetry
from app.celery import app

#: Set when this process is to end; every stream and every long run looks at it.
STOP = threading.Event()
#: Set a little later, for what cannot look.
ABORT = threading.Event()
ABORT_S = 3.0
WATCHDOG_S = 28.0

#: What a signal handler may do: this queue's `put` can interrupt itself, an Event's `set` and a Thread's `start` cannot.
_asked: SimpleQueue[str] = SimpleQueue()
#: Called when STOP has been set, for those who sleep.
on_stop: list[Callable[[], None]] = []
#: The worker of this process, once it has started.
_workers: list[Any] = []


@signals.celeryd_init.connect
def _watch(**_: Any) -> None:
    threading.Thread(target=_end_in_time, name="watchdog", daemon=True).start()


def _end_in_time() -> None:
    _asked.get()
    STOP.set()
    for wake in on_stop:
        wake()
    time.sleep(ABORT_S)
    ABORT.set()
    time.sleep(WATCHDOG_S - ABORT_S)
    telemetry.stop_overdue(WATCHDOG_S)
    for worker in _workers:
        if worker.beat is not None:  # `-B`: a process of its own, which would go on without us
            with suppress(OSError):
                os.kill(worker.beat.pid, signal.SIGTERM)
    os._exit(1)


@signals.worker_shutting_down.connect
def _signalled(sig: str, how: str, **_: Any) -> None:
    """Runs inside a signal handler."""
    _asked.put(f"{how} {sig}")


class Stopping(bootsteps.StartStopStep):
    """Stops the streams before Celery waits for them, whatever ends the worker: SIGHUP, SIGQUIT, `celery control shutdown`
    and an error of Celery's own send no `worker_shutting_down`."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        _workers.append(worker)

    def stop(self, worker: Any) -> None:
        _asked.put("stop")

    def terminate(self, worker: Any) -> None:
        _asked.put("terminate")


app.steps["worker"].add(Stopping)


@signals.worker_shutdown.connect
def _ended(sender: Any, **_: Any) -> None:
    """Ctrl-C is a stop like SIGTERM: Celery would end with 1 although everything ended by itself."""
    from celery.worker import state

    if state.should_stop is not None and state.should_stop is not False and not state.should_terminate:
        sender.exitcode = 0


@signals.task_prerun.connect
def _begins(task_id: str, task: Any, args: Any, **_: Any) -> None:
    """A thread is called by its task, for whoever looks at threads, and its lines in the log say which task it was."""
    threading.current_thread().name = " ".join([task.name, *map(str, args or ())])
    logs.bind(task=task.name, task_id=task_id)


@signals.task_postrun.connect
def _ends(**_: Any) -> None:
    threading.current_thread().name = "idle"
    logs.unbind()
