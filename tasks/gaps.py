"""The periodic repair: seams judged, missing trades fetched again."""

from __future__ import annotations

from app.celery import app
from tasks.stopping import STOP
from tasks.wired import wiring


@app.task(name="gaps.repair", ignore_result=True)
def repair() -> dict[str, object]:
    """One run of repairs; a run that is still going makes this one a no-op."""
    from app.pipeline import periodic  # a worker of other queues does without SQLAlchemy

    return periodic.repair(wiring(), STOP)
