"""Beat's scheduler: Celery's own, which also makes the directory of its file."""

from __future__ import annotations

from pathlib import Path

from celery.beat import PersistentScheduler


class Schedule(PersistentScheduler):
    """Keeps when each task last ran in a file with the data; beat may be the first process that ever runs there."""

    schedule_filename: str

    def setup_schedule(self) -> None:
        Path(self.schedule_filename).parent.mkdir(parents=True, exist_ok=True)
        super().setup_schedule()
