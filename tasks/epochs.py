"""The periodic reckoning: what nobody lives to tell is found out and declared."""

from __future__ import annotations

from app.celery import app
from tasks.stopping import STOP
from tasks.wired import wiring


@app.task(name="epochs.reckon", ignore_result=True)
def reckon() -> dict[str, object]:
    """Epochs whose process died, or whose last word was lost; a run that is still going makes this one a no-op."""
    from app.pipeline import periodic  # a worker of other queues does without SQLAlchemy

    return periodic.reckon(wiring(), STOP)
