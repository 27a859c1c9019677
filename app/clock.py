"""The only place that reads a clock."""

from __future__ import annotations

import time

monotonic_s = time.monotonic
sleep = time.sleep


def wall_us() -> int:
    """Microseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1000
