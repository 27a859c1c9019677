"""The periodic certification of order books: rows as stored -> verdicts."""

from __future__ import annotations

from app.celery import app
from tasks.stopping import STOP
from tasks.wired import wiring


@app.task(name="books.certify", ignore_result=True)
def certify() -> dict[str, object]:
    """Judge what was stored since the last run; a run that is still going makes this one a no-op."""
    from app.pipeline import periodic  # a worker of other queues does without SQLAlchemy

    return periodic.certify(wiring(), STOP)
