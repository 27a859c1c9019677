"""The counts of all processes, brought together in Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import msgspec
import redis

from app.buffer.client import answering, script
from app.metrics import Series

#: A call is repeated within this: no network is away for longer, or the process is gone.
REMEMBERED_MS = 7 * 86400 * 1000


class Tally:
    """The sums under one prefix. They live as long as Redis keeps them: who reads them takes a fall for a new beginning."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis, self._prefix = client, prefix
        self._add = script(client, "tally")

    def add(self, process: str, number: int, differences: Mapping[Series, float]) -> None:
        """Add the `number`th call of `process`, once however often it is made. Raises: BufferUnavailable."""
        args: list[str | bytes | float] = [number, REMEMBERED_MS]
        for series, difference in differences.items():
            args += [msgspec.json.encode(series), repr(difference)]
        with answering():
            self._add(keys=[f"{self._prefix}:tally", f"{self._prefix}:tallied:{process}"], args=args)

    def sums(self) -> dict[Series, float]:
        """Every series with its sum over all processes that ever were. Raises: BufferUnavailable."""
        with answering():
            found = cast(dict[bytes, bytes], self._redis.hgetall(f"{self._prefix}:tally"))
        decode = msgspec.json.Decoder(Series).decode
        return {decode(series): float(value) for series, value in found.items()}

    def sum(self, series: Series) -> float:
        """One of them; 0 where it was never added to. Raises: BufferUnavailable."""
        with answering():
            found = cast(bytes | None, self._redis.hget(f"{self._prefix}:tally", msgspec.json.encode(series).decode()))
        return float(found or 0)


class Reporter:
    """What one process has counted, brought to the tally so that nothing is added twice and nothing is left out."""

    def __init__(self, tally: Tally, process: str, counted: Callable[[], dict[Series, float]]) -> None:
        self._tally, self._process, self._counted = tally, process, counted
        self._number = 0
        self._added: dict[Series, float] = {}
        #: Counts at the time of a call that was not answered: it is made again before any other.
        self._asked: dict[Series, float] | None = None

    def report(self) -> None:
        """Bring what came since the last time. Raises: BufferUnavailable; the next call makes up for it."""
        for _ in range(2 if self._asked is not None else 1):
            if self._asked is None:
                self._asked = self._counted()
                self._number += 1
            new = {
                s: value - self._added.get(s, 0.0)
                for s, value in self._asked.items()
                if value != self._added.get(s, 0.0)
            }
            if new:
                self._tally.add(self._process, self._number, new)
            self._added, self._asked = self._asked, None
