"""Endless stream tasks, and the supervisor that sees to it that each stream has one."""

from __future__ import annotations

from contextlib import suppress

from celery.utils.nodenames import worker_direct
from kombu.exceptions import OperationalError

from app.celery import app
from app.pipeline import supervise as supervision
from tasks.lifecycle import PRESENCE
from tasks.stopping import STOP
from tasks.wired import wiring

#: A dispatched task that no worker has taken by then is discarded, and dispatched again; never later than a lease runs out,
#: so that one which was taken by a worker that was killed is not waited for.
DISPATCH_SECS = 15.0


@app.task(name="streams.run", acks_late=False, ignore_result=True, max_retries=0, bind=True)
def run(self, stream: str) -> str:  # type: ignore[no-untyped-def]
    """Collect one stream until this worker stops. The message is only a nudge; the lease is the truth."""
    if self.request.delivery_info and not supervision.in_threads():
        raise RuntimeError("stream tasks need the threads pool: celery -A app worker -P threads -Q streams")

    def crowded() -> None:
        """The list has passed max_batch_size: do not wait for the next beat. Not being able to say so loses nothing."""
        with suppress(OperationalError):
            app.send_task("flush.run", expires=5, retry=False)

    with PRESENCE.running(stream) as first:
        reason = supervision.collect(wiring(), stream, STOP, crowded) if first else "runs here already"
        if reason in supervision.FAILURES:
            PRESENCE.failed()
    return reason


@app.task(name="streams.supervise", ignore_result=True)
def supervise() -> list[str]:
    """Dispatch every planned stream that nobody holds, to the worker with the fewest; make the shares equal."""

    ttl_s = min(DISPATCH_SECS, wiring().settings.buffer.lease_secs)

    def send(stream: str, worker: str) -> None:
        queue = worker_direct(worker) if worker else "streams"
        run.apply_async((stream,), queue=queue, expires=ttl_s)

    return supervision.dispatch(wiring(), ttl_s, send)
