"""A lease: the time-limited right to do something alone. Decides who connects or flushes, never whether data is kept."""

from __future__ import annotations

from enum import Enum
from typing import cast

import redis

from app.buffer.client import answering, script


class Holding(Enum):
    OURS = "ours"
    #: It ran out and nobody took it (Redis lost its data, or we were away too long): take it again.
    EXPIRED = "expired"
    TAKEN = "taken"


class Lease:
    """One named lease with one token. `token` should say who holds it, for people who look."""

    def __init__(self, client: redis.Redis, prefix: str, name: str, token: str, ttl_s: float) -> None:
        self.name, self.token, self.ttl_s = name, token, ttl_s
        self._redis = client
        self._key = f"{prefix}:lease:{name}"
        self._renew, self._release = script(client, "renew"), script(client, "release")

    def acquire(self) -> bool:
        """True when it is ours from now on for `ttl_s`. Raises: BufferUnavailable."""
        with answering():
            return bool(self._redis.set(self._key, self.token, nx=True, px=int(self.ttl_s * 1000)))

    def renew(self) -> Holding:
        """Prolong it by `ttl_s` from now. Raises: BufferUnavailable (then nobody knows, and nobody else can take it)."""
        with answering():
            answer = cast(int, self._renew(keys=[self._key], args=[self.token, int(self.ttl_s * 1000)]))
        return {1: Holding.OURS, 0: Holding.EXPIRED}.get(answer, Holding.TAKEN)

    def release(self) -> None:
        """Give it back if it is still ours. Raises: BufferUnavailable."""
        with answering():
            self._release(keys=[self._key], args=[self.token])

    def holder(self) -> str | None:
        """The token of whoever holds it now. Raises: BufferUnavailable."""
        with answering():
            value = cast(bytes | None, self._redis.get(self._key))
        return value.decode() if value is not None else None
