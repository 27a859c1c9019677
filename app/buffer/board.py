"""The notice board in Redis: what streams and stream workers say of themselves, what is on its way, when supervision ran."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import redis

from app.buffer.client import answering, script

#: Who may say that something keeps it from its work.
STATIONS = ("flush", "archive", "segments")
#: So long after a stream refused events it is remembered that it did.
DROPPED_S = 300


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

    def publish(self, stream: str, state: dict[str, Any], ttl_s: float, *, dropped: bool = False) -> str | None:
        """Put up the state of a stream for `ttl_s`; returns what `ask_handover` asks of it. Raises: BufferUnavailable.

        `dropped`: it has refused events since the last time, which is remembered for DROPPED_S whatever becomes of it.
        """
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            if dropped:
                pipe.set(f"{self._prefix}:dropped:{stream}", 1, ex=DROPPED_S)
            pipe.set(f"{self._prefix}:state:{stream}", msgspec.json.encode(state), px=int(ttl_s * 1000))
            pipe.get(f"{self._prefix}:handover:{stream}")
            token = pipe.execute()[-1]
        return token.decode() if token is not None else None

    def states(self, streams: list[str]) -> dict[str, dict[str, Any]]:
        """The states of those of `streams` that have one. Raises: BufferUnavailable."""
        return {name: msgspec.json.decode(value) for name, value in self._found("state", streams).items()}

    def dropping(self, streams: list[str]) -> list[str]:
        """Those of `streams` that have refused events in the last DROPPED_S. Raises: BufferUnavailable."""
        return list(self._found("dropped", streams))

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

    def succeeded(self, station: str, now_s: int) -> None:
        """Say that a run of it ended without trouble. Raises: BufferUnavailable."""
        with answering():
            self._redis.hset(f"{self._prefix}:succeeded", station, str(now_s))

    def successes(self) -> dict[str, int]:
        """Station -> UTC second of its last run without trouble, of those that had one. Raises: BufferUnavailable."""
        with answering():
            found = cast(dict[bytes, bytes], self._redis.hgetall(f"{self._prefix}:succeeded"))
        return {name.decode(): int(value) for name, value in found.items()}

    def judged(self, exchange: str, symbol: str, feed: str, completeness: float | None) -> None:
        """Say how complete the newest object of a feed is; None: nobody can know. Raises: BufferUnavailable."""
        key, field = f"{self._prefix}:completeness", f"{exchange} {symbol} {feed}"
        with answering():
            if completeness is None:
                self._redis.hdel(key, field)
            else:
                self._redis.hset(key, field, repr(completeness))

    def completeness(self) -> dict[tuple[str, str, str], float]:
        """(exchange, symbol, feed) -> what `judged` said, where it is known. Raises: BufferUnavailable."""
        with answering():
            found = cast(dict[bytes, bytes], self._redis.hgetall(f"{self._prefix}:completeness"))
        return {(e, s, f): float(value) for (e, s, f), value in ((k.decode().split(" "), v) for k, v in found.items())}

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
