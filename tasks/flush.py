"""The periodic flush: Redis -> SQLite."""

from __future__ import annotations

from app.celery import app
from tasks.stopping import STOP
from tasks.wired import wiring


@app.task(name="flush.run", acks_late=False, ignore_result=True)
def run() -> dict[str, object]:
    """Empty every list into the open segment; a run that is still going makes this one a no-op.

    Acknowledged early: when Redis goes away meanwhile, kombu fails to give an unacknowledged message back, and the worker
    ends (seen with kombu 5.7: `'NoneType' object has no attribute 'hostname'`). The next beat is as good.
    """
    from app.pipeline import periodic  # a worker of other queues does without SQLAlchemy

    report = periodic.flush(wiring(), STOP)
    if report.get("sealed"):
        app.send_task("archive.run", expires=60)
    return report
