"""The wiring of this worker process."""

from __future__ import annotations

import threading

from app.wiring import Wiring
from tasks.stopping import ABORT

_lock = threading.Lock()
_made: list[Wiring] = []


def wiring() -> Wiring:
    """One for all threads, made on first use from the settings that celeryconfig has read and validated."""
    with _lock:
        if not _made:
            import celeryconfig

            _made.append(Wiring(celeryconfig.settings, file=celeryconfig.settings_file, interrupted=ABORT.is_set))
        return _made[0]
