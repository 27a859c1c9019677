"""The plan of a running process follows its settings file: markets come and go without a restart.

Only `[[markets]]` and `[exchanges.*]` take effect. Whatever else changed is named, and waits for a restart; settings that
are not right change nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

from app import telemetry
from app.config import SECTIONS, Settings, load
from app.errors import SettingsError
from app.pipeline.plan import Changes, Stream, changes, planned
from app.settings_sources import SECRETS_FILE

#: The files are looked at so often; they are read when they look the same twice, so never in the middle of being written.
LOOK_S = 1.0
#: Nobody keeps it: it is what a group of markets has that names no feeds, and so takes effect with the markets.
WITH_MARKETS = {"collector.feeds"}

#: Modification time, size and inode of each file; None for one that is not there.
Stamp = tuple[tuple[int, int, int] | None, ...]


class Replan:
    """Settings and plan of one process. `file`: the settings file that was read, None to keep to `settings`."""

    def __init__(self, settings: Settings, file: Path | None, monotonic_s: Callable[[], float]) -> None:
        self.settings = settings
        self._started_with = settings
        self._file = file
        self._now_s = monotonic_s
        self._streams: dict[str, Stream] | None = None
        self._looking = threading.Lock()
        self._next_s = 0.0
        self._seen: Stamp | None = None
        self._taken: Stamp | None = None

    @property
    def streams(self) -> dict[str, Stream]:
        """The plan: every stream by name. A dict that is replaced, never changed."""
        if self._streams is None:
            self._streams = planned(self.settings)
        return self._streams

    def look(self) -> bool:
        """Take over what the files say, if they changed; True when the plan is another one now.

        Costs nothing more than once in `LOOK_S`, nor in two threads at once.
        """
        if self._file is None or not self._looking.acquire(blocking=False):
            return False
        try:
            if (now_s := self._now_s()) < self._next_s:
                return False
            self._next_s = now_s + LOOK_S
            seen, before = self._stamp(self._file), self._seen
            self._seen = seen
            if seen != before or seen == self._taken:
                return False
            self._taken = seen
            return self._take_over(self._file)
        finally:
            self._looking.release()

    @staticmethod
    def _stamp(file: Path) -> Stamp:
        found: list[tuple[int, int, int] | None] = []
        for path in (file, file.with_name(SECRETS_FILE)):
            try:
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                found.append(None)
        return tuple(found)

    def _take_over(self, file: Path) -> bool:
        try:
            read = load(file).settings
        except (SettingsError, OSError) as error:
            telemetry.settings_refused(str(file), getattr(error, "faults", (str(error),)))
            return False
        settings = replace(self.settings, markets=read.markets, exchanges=read.exchanges)
        before, after = self.streams, planned(settings)
        differs: Changes = changes(before, after)
        waiting = needs_restart(self._started_with, read)
        self.settings, self._streams = settings, after
        if any(differs) or waiting:
            telemetry.settings_changed(str(file), *differs, waiting)
        return any(differs)


def needs_restart(before: Settings, after: Settings) -> list[str]:
    """Keys that differ and that a running process does not take over."""
    return [
        key
        for name in SECTIONS
        for key, field_name in ((f"{name}.{f.name}", f.name) for f in fields(SECTIONS[name]))
        if key not in WITH_MARKETS
        and getattr(getattr(before, name), field_name) != getattr(getattr(after, name), field_name)
    ]
