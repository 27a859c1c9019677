"""The periodic archive: sealed segments -> verified objects -> segments removed."""

from __future__ import annotations

from app.celery import app
from tasks.stopping import STOP
from tasks.wired import wiring


@app.task(name="archive.run", acks_late=False, ignore_result=True)
def run() -> dict[str, object]:
    """One archive cycle; a cycle that is still going makes this one a no-op. Acknowledged early, as the flush."""
    from app.pipeline import periodic  # a worker of other queues does without SQLAlchemy

    return periodic.archive(wiring(), STOP)


@app.task(name="archive.housekeeping", ignore_result=True)
def housekeeping() -> dict[str, object]:
    """Keep the quarantine within its bound."""
    from app.pipeline import periodic  # a worker of other queues does without SQLAlchemy

    return periodic.housekeeping(wiring())
