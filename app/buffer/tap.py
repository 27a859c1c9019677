"""What streams push, as they push it, for whoever looks at this moment: the push script publishes each element.

Nothing is kept for it and nobody waits for it. A listener that cannot follow is cut off by Redis (its limit for
subscribers' output), and streams and flush never notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, cast

import redis

from app.buffer.client import answering
from app.errors import BufferUnavailable


def channel(prefix: str, stream: str) -> str:
    """The channel of a stream's elements."""
    return f"{prefix}:tap:{stream}"


class Tap:
    """A subscription to some streams; entered, every element pushed from then on comes out of `next`."""

    def __init__(self, client: redis.Redis, prefix: str, streams: Sequence[str]) -> None:
        self._channels = [channel(prefix, stream) for stream in streams]
        self._pubsub = client.pubsub()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        """Subscribe, and wait until Redis has said so. Raises: BufferUnavailable."""
        try:
            with answering():
                self._pubsub.subscribe(*self._channels)
                for _ in self._channels:
                    if self._pubsub.get_message(timeout=5) is None:
                        raise BufferUnavailable("Redis: no answer to SUBSCRIBE")
        except BufferUnavailable:
            self._pubsub.close()
            raise
        return self

    def next(self, timeout_s: float) -> bytes | None:
        """The next element, None where none came within `timeout_s`. Raises: BufferUnavailable."""
        with answering():
            message = self._pubsub.get_message(ignore_subscribe_messages=True, timeout=timeout_s)
        return cast(bytes, message["data"]) if message is not None else None

    def __exit__(self, *_: object) -> None:
        self._pubsub.close()
