"""The notice board in Redis: what streams and stream workers say of themselves, what is on its way, when supervision ran."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import redis

from app.buffer.client import answering, script

#: Who may say that something keeps it from its work.
STATIONS = ("flush", "archive", "segments")


class Board:
    """Short-lived keys; a process that dies disappears from the board by itself."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis, self._prefix = client, prefix
        self._release, self._workers = script(client, "release"), script(client, "workers")

    def _found(self, kind: str, streams: list[str]) -> dict[str, bytes]:
        """The values of `<prefix>:<kind>:<stream>`, of those streams that have one."""
        if not streams:
            return {}
        with answering():
            values = cast(list[bytes | None], self._redis.mget([f"{self._prefix}:{kind}:{name}" for name in streams]))
        return {name: value for name, value in zip(streams, values, strict=True) if value is not None}

    # streams

    def publish(self, stream: str, state: dict[str, Any], ttl_s: float) -> str | None:
        """Put up the state of a stream for `ttl_s`; returns what `ask_handover` asks of it. Raises: BufferUnavailable."""
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(f"{self._prefix}:state:{stream}", msgspec.json.encode(state), px=int(ttl_s * 1000))
            pipe.get(f"{self._prefix}:handover:{stream}")
            _, token = pipe.execute()
        return token.decode() if token is not None else None

    def states(self, streams: list[str]) -> dict[str, dict[str, Any]]:
        """The states of those of `streams` that have one. Raises: BufferUnavailable."""
        return {name: msgspec.json.decode(value) for name, value in self._found("state", streams).items()}

    def holders(self, streams: list[str]) -> dict[str, str]:
        """stream -> the token of its lease, of those that somebody holds the lease of. Raises: BufferUnavailable."""
        return {name: value.decode() for name, value in self._found("lease:stream", streams).items()}

    def leased(self, streams: list[str]) -> set[str]:
        """Those of `streams` that somebody holds the lease of. Raises: BufferUnavailable."""
        return set(self.holders(streams))

    def ask_handover(self, stream: str, token: str, ttl_s: float) -> bool:
        """Ask whoever holds the lease with `token` to end the stream; no later holder is meant. Raises: BufferUnavailable.

        False while it is already asked for.
        """
        with answering():
            return bool(self._redis.set(f"{self._prefix}:handover:{stream}", token, nx=True, px=int(ttl_s * 1000)))

    def handovers(self, streams: list[str]) -> dict[str, str]:
        """stream -> the token of the lease that is asked for. Raises: BufferUnavailable."""
        return {name: value.decode() for name, value in self._found("handover", streams).items()}

    # tasks on their way

    def dispatch(self, stream: str, ttl_s: float, worker: str = "", instead_of: str | None = None) -> bool:
        """True once per `ttl_s`: the caller is to send the stream's task to `worker` ("": to any).

        `instead_of`: the worker to which it was sent before, and which is no longer there. Raises: BufferUnavailable.
        """
        key = f"{self._prefix}:dispatched:{stream}"
        with answering():
            if instead_of is not None:
                self._release(keys=[key], args=[instead_of])
            return bool(self._redis.set(key, worker, nx=True, px=int(ttl_s * 1000)))

    def dispatched(self, streams: list[str]) -> dict[str, str]:
        """stream -> the worker it was sent to less than `ttl_s` ago ("": to any). Raises: BufferUnavailable."""
        return {name: value.decode() for name, value in self._found("dispatched", streams).items()}

    def arrived(self, stream: str) -> None:
        """Its task is not on its way any more: the stream may be dispatched at once. Raises: BufferUnavailable."""
        with answering():
            self._redis.delete(f"{self._prefix}:dispatched:{stream}")

    # workers

    def join(self, worker: str, told: dict[str, Any], ttl_s: float) -> None:
        """Put up what a stream worker says of itself for `ttl_s`. Raises: BufferUnavailable."""
        with answering():
            pipe = self._redis.pipeline()
            pipe.set(f"{self._prefix}:worker:{worker}", msgspec.json.encode(told), px=int(ttl_s * 1000))
            pipe.sadd(f"{self._prefix}:workers", worker)
            pipe.execute()

    def leave(self, worker: str) -> None:
        """Take a worker off at once. Raises: BufferUnavailable."""
        with answering():
            self._redis.delete(f"{self._prefix}:worker:{worker}")

    def workers(self) -> dict[str, dict[str, Any]]:
        """Node name -> what it says of itself, of every stream worker that is there. Raises: BufferUnavailable."""
        with answering():
            found = cast(list[bytes], self._workers(keys=[f"{self._prefix}:workers", f"{self._prefix}:worker:"]))
        return {
            name.decode(): msgspec.json.decode(value)
            for name, value in sorted(zip(found[::2], found[1::2], strict=True))
        }

    # stations

    def trouble(self, station: str, notice: dict[str, Any], ttl_s: float) -> None:
        """Put up for `ttl_s` what keeps a station from its work. Raises: BufferUnavailable."""
        with answering():
            self._redis.set(f"{self._prefix}:trouble:{station}", msgspec.json.encode(notice), px=int(ttl_s * 1000))

    def all_well(self, station: str) -> None:
        """Take it off. Raises: BufferUnavailable."""
        with answering():
            self._redis.delete(f"{self._prefix}:trouble:{station}")

    def troubles(self) -> dict[str, dict[str, Any]]:
        """Station -> its notice: level (`warning` or `degraded`), detail, since_us. Raises: BufferUnavailable."""
        return {name: msgspec.json.decode(value) for name, value in self._found("trouble", list(STATIONS)).items()}

    # supervision

    def beat(self, now_s: int) -> None:
        """Say that supervision ran. Raises: BufferUnavailable."""
        with answering():
            self._redis.set(f"{self._prefix}:beat", now_s, ex=3600)

    def last_beat_s(self) -> int | None:
        """UTC second of the last supervision, None when it did not run in the last hour. Raises: BufferUnavailable."""
        with answering():
            value = cast(bytes | None, self._redis.get(f"{self._prefix}:beat"))
        return int(value) if value is not None else None
