"""How full the local disk is: at 80 % it is said, at 90 % the flush takes nothing more until there is room again.

What is not taken stays in Redis, then in the spool, then it is declared lost: the archive, which is what makes room, and
the ledger never find the last page taken. Counted are segments, unfinished objects and, where there is a local store, its
objects: all that Collector puts on this disk beside what has a bound of its own (spool, quarantine).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from app.config import Settings

LOW, FULL = "low", "full"
#: A file system is not low, and not full, while so many bytes of it are free: 10 % of a large one are plenty.
PLENTY_BYTES = {LOW: 10 * 1024**3, FULL: 5 * 1024**3}
#: Level -> share of the bound that is used.
WATERMARKS = {FULL: 0.90, LOW: 0.80}
#: Objects of a local store may be many: they are counted so seldom.
COUNT_OBJECTS_S = 60.0


class Room(NamedTuple):
    """How much is used of the bound that is nearest: `[storage] max_local_bytes`, or the file system."""

    bound: str
    used_bytes: int
    of_bytes: int
    #: `` | low | full
    level: str

    @property
    def share(self) -> float:
        return self.used_bytes / self.of_bytes if self.of_bytes else 1.0

    def __str__(self) -> str:
        return f"{self.share:.0%} of {self.bound} used ({self.used_bytes} of {self.of_bytes} bytes)"


def judge(own_bytes: int, max_local_bytes: int, place: str, used_bytes: int, free_bytes: int) -> Room:
    """The nearer of the two bounds; `max_local_bytes` 0: there is but the file system. Pure."""
    system = Room(f"the file system of {place}", used_bytes, used_bytes + free_bytes, "")
    rooms = [system._replace(level=_level(system.share, free_bytes))]
    if max_local_bytes:
        own = Room("[storage] max_local_bytes", own_bytes, max_local_bytes, "")
        rooms.append(own._replace(level=_level(own.share, 0)))
    order = list(WATERMARKS)
    return min(rooms, key=lambda room: (order.index(room.level) if room.level else len(order), -room.share))


def _level(share: float, free_bytes: int) -> str:
    reached = (name for name, mark in WATERMARKS.items() if share >= mark and free_bytes < PLENTY_BYTES[name])
    return next(reached, "")


class Disk:
    """Measures. `waiting`: directories that the archive empties; `kept`: those of a local store. One for a process."""

    def __init__(
        self,
        place: Path,
        waiting: Iterable[Path],
        kept: Iterable[Path],
        max_local_bytes: int,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._place, self._waiting, self._kept = place, tuple(waiting), tuple(kept)
        self._max_local_bytes = max_local_bytes
        self._now_s = monotonic_s
        self._kept_bytes = 0
        self._count_s = -COUNT_OBJECTS_S

    @classmethod
    def of(cls, settings: Settings, monotonic_s: Callable[[], float]) -> Disk:
        """As the settings say."""
        storage = settings.storage
        kept = [] if storage.mode == "s3" else [storage.local_path]
        waiting = [storage.segments_path, settings.archive.dir]
        return cls(storage.segments_path, waiting, kept, storage.max_local_bytes, monotonic_s)

    def room(self) -> Room:
        """Measured now. Raises: OSError for a disk that cannot even be asked."""
        existing = next(path for path in (self._place, *self._place.absolute().parents) if path.exists())
        usage = shutil.disk_usage(existing)
        own_bytes = 0
        if self._max_local_bytes:
            if self._now_s() - self._count_s >= COUNT_OBJECTS_S:
                self._count_s = self._now_s()
                self._kept_bytes = sum(map(size_bytes, self._kept))
            own_bytes = self._kept_bytes + sum(map(size_bytes, self._waiting))
        return judge(own_bytes, self._max_local_bytes, str(self._place), usage.used, usage.free)


def size_bytes(directory: Path) -> int:
    """Bytes of all files below `directory`; 0 where there is none."""
    total = 0
    pending = [str(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # archived and removed meanwhile
            continue
    return total
