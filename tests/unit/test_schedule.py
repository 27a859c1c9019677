"""Beat needs no disk to go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from tasks.schedule import Schedule
from tests.support.small_disk import small_disk


def _schedule(directory: Path) -> Schedule:
    """Beat's scheduler as `celery beat` makes it, with one task."""
    app = Celery("tests", set_as_current=False, broker="memory://")
    app.conf.beat_schedule = {"flush": {"task": "flush.run", "schedule": 5.0}}
    return Schedule(app=app, schedule_filename=str(directory / "new" / "celerybeat-schedule"))


def _tasks(schedule: Schedule) -> list[str]:
    return [name for name in schedule.schedule if name == "flush"]


@pytest.mark.row("D4")
def test_beat_begins_where_its_file_cannot_be_made(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024 * 1024) as disk:
        assert disk.read_only()
        schedule = _schedule(disk.path)
        assert _tasks(schedule) == ["flush"]
        schedule.sync()
        schedule.close()


@pytest.mark.row("D2")
def test_beat_goes_on_from_memory_when_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024 * 1024) as disk:
        schedule = _schedule(disk.path)
        schedule.sync()
        disk.fill()
        schedule.schedule["flush"].total_run_count = 7
        for _ in range(3):
            schedule.sync()
        assert schedule.schedule["flush"].total_run_count == 7
        schedule.close()
