"""Beat's scheduler: Celery's own, which also makes the directory of its file, and needs no disk to go on."""

from __future__ import annotations

import dbm
import shelve
from pathlib import Path
from typing import Any

from celery.beat import PersistentScheduler

from app import telemetry_disk


class Schedule(PersistentScheduler):
    """Keeps when each task last ran in a file with the data; beat may be the first process that ever runs there.

    The file only spares a run after a restart. On a disk that is full or read-only beat goes on from memory: without it
    nothing would be flushed or archived, and no room be made.
    """

    schedule_filename: str
    _store: Any

    def setup_schedule(self) -> None:
        try:
            Path(self.schedule_filename).parent.mkdir(parents=True, exist_ok=True)
            super().setup_schedule()
        except dbm.error as error:  # an OSError, or the like of the library that keeps the file
            self._remember(error)

    def sync(self) -> None:
        try:
            super().sync()
        except dbm.error as error:
            self._remember(error)

    def _remember(self, error: Exception) -> None:
        """In memory from now on."""
        telemetry_disk.schedule_not_kept(error)
        held = {}
        if self._store is not None:
            held = {"entries": self._store.cache["entries"]} if "entries" in self._store.cache else {}
        self._store = shelve.Shelf({}, writeback=True)
        self._store.update(held)
        if not held:
            self._create_schedule()  # type: ignore[attr-defined]
            self.merge_inplace(self.app.conf.beat_schedule)
            self.install_default_entries(self.schedule)
