"""The wiring of this worker process."""

from __future__ import annotations

from functools import cache

from app.wiring import Wiring


@cache
def wiring() -> Wiring:
    """Made on the first task, from the settings that celeryconfig has read and validated."""
    import celeryconfig

    return Wiring(celeryconfig.settings)
