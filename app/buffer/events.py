"""Batches in Redis lists: push, read the head, acknowledge. One list per stream, bounded in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, cast

import redis
from redis.exceptions import NoScriptError

from app.buffer.client import answering, script
from app.buffer.tap import channel
from app.codec import BatchCodec, ElementRejected, events_in, identity
from app.errors import BufferUnavailable
from app.model import Event, Quarantined

#: Elements that are looked at in one question.
WAITING_AT_ONCE = 100
#: Batches at the head of a list that are looked through for an event: the first of a connection has none.
HEADS = 3


class Depth(NamedTuple):
    """What waits in one stream's list."""

    stream: str
    batches: int
    bytes: int
    events: int


#: Events that wait in the list now; None: it is full; or why nobody knows whether it was appended.
Outcome = int | None | BufferUnavailable


def _outcome(answer: object) -> Outcome:
    try:
        with answering():
            if isinstance(answer, Exception):
                raise answer
    except BufferUnavailable as error:
        return error
    waiting = cast(int, answer)
    return None if waiting < 0 else waiting


class EventBuffer:
    """The lists of all streams under one prefix. Safe to share between threads."""

    def __init__(self, client: redis.Redis, prefix: str, list_max_bytes: int) -> None:
        self._redis = client
        self._prefix = prefix
        self._list_max_bytes = list_max_bytes
        self._push, self._head, self._ack = (script(client, name) for name in ("push", "head", "ack"))

    def _keys(self, stream: str) -> list[str]:
        return [f"{self._prefix}:buffer:{stream}", f"{self._prefix}:buffer-bytes", f"{self._prefix}:buffer-events"]

    def push(self, stream: str, element: bytes) -> int | None:
        """Append one element; returns the events that wait in the list now, None when it is full.

        Raises: BufferUnavailable, and then it may or may not have been appended: pushing the same element again is
        safe, the flush counts the second one as a replay.
        """
        (outcome,) = self.push_all([(stream, element)])
        if isinstance(outcome, BufferUnavailable):
            raise outcome
        return outcome

    def push_all(self, elements: Sequence[tuple[str, bytes]]) -> list[Outcome]:
        """As `push`, each (stream, element) in turn, in one question; what came of each."""
        try:
            with answering():
                answers = self._pushed(elements)
                if any(isinstance(answer, NoScriptError) for answer in answers):  # Redis has not seen it since it began
                    self._redis.script_load(self._push.script)
                    answers = self._pushed(elements)
        except BufferUnavailable as error:
            return [error] * len(elements)
        return [_outcome(answer) for answer in answers]

    def _pushed(self, elements: Sequence[tuple[str, bytes]]) -> list[object]:
        pipe = self._redis.pipeline(transaction=False)
        for stream, element in elements:
            args = stream, element, events_in(element), self._list_max_bytes, channel(self._prefix, stream)
            pipe.evalsha(self._push.sha, 3, *self._keys(stream), *args)
        return cast(list[object], pipe.execute(raise_on_error=False))

    def head(self, stream: str, max_batches: int, max_bytes: int) -> list[bytes]:
        """The oldest elements, left where they are; at least one where there is one. Raises: BufferUnavailable."""
        with answering():
            return cast(list[bytes], self._head(keys=self._keys(stream)[:1], args=[max_batches, max_bytes]))

    def waiting(self, stream: str) -> Iterator[bytes]:
        """Every element of a list, left where it is, the newest first: counted from that end, none is passed over while
        others are acknowledged at the head; one may come twice while others are pushed. Raises: BufferUnavailable."""
        at = 0
        while True:
            with answering():
                part = cast(list[bytes], self._redis.lrange(self._keys(stream)[0], -at - WAITING_AT_ONCE, -at - 1))
            yield from reversed(part)
            if len(part) < WAITING_AT_ONCE:
                return
            at += len(part)

    def acknowledge(self, stream: str, elements: Sequence[bytes]) -> int:
        """Remove `elements` from the head, only while they are what stands there. Returns how many were removed.

        Call it after the commit that stored them: a crash in between replays them, and the ranges make that a no-op.
        """
        args: list[str | bytes | int] = [stream]
        for element in elements:
            args += [identity(element), events_in(element)]
        with answering():
            return cast(int, self._ack(keys=self._keys(stream), args=args))

    def oldest_us(self, streams: Sequence[str]) -> dict[str, int]:
        """When the first event of each of these lists was received; without those where none is among the first batches.

        Raises: BufferUnavailable.
        """
        with answering():
            pipe = self._redis.pipeline(transaction=False)
            for stream in streams:
                pipe.lrange(self._keys(stream)[0], 0, HEADS - 1)
            heads = cast(list[list[bytes]], pipe.execute() if streams else [])
        codec, found = BatchCodec(), {}
        for stream, element in ((stream, e) for stream, some in zip(streams, heads, strict=True) for e in some):
            if stream not in found and events_in(element):
                with suppress(ElementRejected):
                    batch = codec.decode(element)
                    units: tuple[Event | Quarantined, ...] = (*batch.events[:1], *batch.quarantined[:1])
                    found[stream] = min(unit.received_us for unit in units)
        return found

    def memory(self) -> tuple[int, int]:
        """Bytes that Redis uses, and its maxmemory (0: none). Raises: BufferUnavailable."""
        with answering():
            told = cast(dict[str, int], self._redis.info("memory"))
        return told["used_memory"], told.get("maxmemory", 0)

    def depths(self) -> list[Depth]:
        """Every list that is not empty, by stream name. Raises: BufferUnavailable."""
        with answering():
            events = cast(dict[bytes, bytes], self._redis.hgetall(f"{self._prefix}:buffer-events"))
            sizes = cast(dict[bytes, bytes], self._redis.hgetall(f"{self._prefix}:buffer-bytes"))
            streams = sorted(name.decode() for name in sizes)
            pipe = self._redis.pipeline(transaction=False)
            for stream in streams:
                pipe.llen(self._keys(stream)[0])
            lengths = pipe.execute() if streams else []
        return [
            Depth(stream, length, int(sizes[stream.encode()]), int(events.get(stream.encode(), b"0")))
            for stream, length in zip(streams, lengths, strict=True)
        ]
