"""The notice board in Redis: what each stream says of itself, which tasks are on their way, when supervision last ran."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import redis

from app.buffer.client import answering


class Board:
    """Short-lived keys; a process that dies disappears from the board by itself."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis, self._prefix = client, prefix

    def publish(self, stream: str, state: dict[str, Any], ttl_s: float) -> None:
        """Put up the state of a stream for `ttl_s`. Raises: BufferUnavailable."""
        with answering():
            self._redis.set(f"{self._prefix}:state:{stream}", msgspec.json.encode(state), px=int(ttl_s * 1000))

    def states(self, streams: list[str]) -> dict[str, dict[str, Any]]:
        """The states of those of `streams` that have one. Raises: BufferUnavailable."""
        if not streams:
            return {}
        with answering():
            values = cast(list[bytes | None], self._redis.mget([f"{self._prefix}:state:{name}" for name in streams]))
        return {name: msgspec.json.decode(value) for name, value in zip(streams, values, strict=True) if value}

    def leased(self, streams: list[str]) -> set[str]:
        """Those of `streams` that somebody holds the lease of. Raises: BufferUnavailable."""
        if not streams:
            return set()
        with answering():
            values = cast(list[bytes | None], self._redis.mget([f"{self._prefix}:lease:stream:{n}" for n in streams]))
        return {name for name, value in zip(streams, values, strict=True) if value is not None}

    def dispatch(self, stream: str, ttl_s: float) -> bool:
        """True once per `ttl_s`: the caller is to send the stream's task. Raises: BufferUnavailable."""
        with answering():
            return bool(self._redis.set(f"{self._prefix}:dispatched:{stream}", "1", nx=True, px=int(ttl_s * 1000)))

    def beat(self, now_s: int) -> None:
        """Say that supervision ran. Raises: BufferUnavailable."""
        with answering():
            self._redis.set(f"{self._prefix}:beat", now_s, ex=3600)

    def last_beat_s(self) -> int | None:
        """UTC second of the last supervision, None when it did not run in the last hour. Raises: BufferUnavailable."""
        with answering():
            value = cast(bytes | None, self._redis.get(f"{self._prefix}:beat"))
        return int(value) if value is not None else None
