"""Endless stream tasks, and the supervisor that sees to it that each stream has one."""

from __future__ import annotations

from contextlib import suppress

from kombu.exceptions import OperationalError

from app.celery import app
from app.pipeline import supervise as supervision
from tasks.stopping import STOP
from tasks.wired import wiring

#: A dispatched task that no worker has taken by then is discarded, and dispatched again.
DISPATCH_SECS = 15


@app.task(name="streams.run", acks_late=False, ignore_result=True, max_retries=0, bind=True)
def run(self, stream: str) -> str:  # type: ignore[no-untyped-def]
    """Collect one stream until this worker stops. The message is only a nudge; the lease is the truth."""
    if self.request.delivery_info and not supervision.in_threads():
        raise RuntimeError("stream tasks need the threads pool: celery -A app worker -P threads -Q streams")

    def crowded() -> None:
        """The list has passed max_batch_size: do not wait for the next beat. Not being able to say so loses nothing."""
        with suppress(OperationalError):
            app.send_task("flush.run", expires=5, retry=False)

    return supervision.collect(wiring(), stream, STOP, crowded)


@app.task(name="streams.supervise", ignore_result=True)
def supervise() -> list[str]:
    """Dispatch every planned stream that nobody holds."""
    return supervision.dispatch(
        wiring(), DISPATCH_SECS, lambda stream: run.apply_async((stream,), expires=DISPATCH_SECS)
    )
