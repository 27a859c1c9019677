"""What a venue allows one address, shared by all workers: connection attempts and REST calls are taken from one budget."""

from __future__ import annotations

from typing import cast

import redis

from app.buffer.client import answering, script
from app.exchanges.base import Pace


class Budget:
    """The budgets of all venues under one prefix. Safe to share between threads."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis, self._prefix = client, prefix
        self._take = script(client, "budget")

    def take(self, venue: str, kind: str, pace: Pace) -> float:
        """0.0 when one request may go now, and is counted; else the seconds after which to ask again.

        Raises: BufferUnavailable; the caller's own backoff is then all that paces it.
        """
        keys = [f"{self._prefix}:budget:{venue}:{kind}", f"{self._prefix}:blocked:{venue}"]
        with answering():
            wait_us = cast(int, self._take(keys=keys, args=[int(1_000_000 / pace.per_s), pace.burst]))
        return wait_us / 1_000_000

    def block(self, venue: str, seconds: float) -> None:
        """The venue told us to stay away for `seconds` (Retry-After): every worker does. Raises: BufferUnavailable."""
        with answering():
            self._redis.set(f"{self._prefix}:blocked:{venue}", "1", px=max(1, int(seconds * 1000)))
