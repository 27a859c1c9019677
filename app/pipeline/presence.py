"""What a stream worker says of itself on the board, and that it says goodbye before its streams end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from app import telemetry
from app.buffer.board import Board
from app.errors import BufferUnavailable

#: After a stream failed here, others are given to this worker last for so long.
FAILING_S = 300.0
#: After Redis did not answer, the next attempt comes after so long; and supervision is called at most so often.
RETRY_S, NUDGE_S = 1.0, 0.2


class Presence:
    """One worker process. `running` may be entered before `keep` has begun, and where it never does.

    `woken` must be set after `stop` is; a signal handler may do that.
    """

    def __init__(self, stop: threading.Event, *, monotonic_s: Callable[[], float], wall_us: Callable[[], int]) -> None:
        self._stop = stop
        self._now_s, self._now_us = monotonic_s, wall_us
        self.woken = threading.Event()
        self._lock = threading.Lock()
        self._streams: set[str] = set()
        #: Streams have ended that somebody else may have, or the worker is new: supervision should know.
        self._changed = True
        #: Never set: a wait that nothing cuts short.
        self._pause = threading.Event()
        self._failed_s: float | None = None

    @property
    def streams(self) -> list[str]:
        """What this process runs now."""
        with self._lock:
            return sorted(self._streams)

    @contextmanager
    def running(self, stream: str) -> Iterator[bool]:
        """While this process has `stream`; False where it has it already."""
        with self._lock:
            first = stream not in self._streams
            self._streams.add(stream)
        self.woken.set()
        try:
            yield first
        except Exception:
            self.failed()
            raise
        finally:
            if first:
                with self._lock:
                    self._streams.discard(stream)
                    self._changed = True
                self.woken.set()

    def failed(self) -> None:
        """A stream could not be collected here, and might be elsewhere."""
        self._failed_s = self._now_s()

    def keep(
        self, board: Board, name: str, process: str, *, threads: int, ttl_s: float, nudge: Callable[[], None]
    ) -> None:
        """Stay on the board as `name` until `stop`, then come off it at once, and return when the last stream has ended.

        `process`: the first part of its lease tokens. `nudge` calls supervision: when the worker has come onto the board,
        and when streams have ended and the board knows.
        """
        since_s, since_us = self._now_s(), self._now_us()
        while True:
            self.woken.clear()
            with self._lock:
                streams, changed, self._changed = sorted(self._streams), self._changed, False
            wait_s = ttl_s / 3
            try:
                if self._stop.is_set():
                    board.leave(name)
                else:
                    board.join(name, self._told(process, streams, threads, since_s, since_us), ttl_s)
            except BufferUnavailable as error:
                telemetry.presence_failed(name, error)
                wait_s = min(wait_s, RETRY_S)
            if changed:
                nudge()
            if self._stop.is_set() and not streams:
                return
            if changed:
                self._pause.wait(NUDGE_S)
            self.woken.wait(wait_s)

    def _told(self, process: str, streams: list[str], threads: int, since_s: float, since_us: int) -> dict[str, Any]:
        now_s = self._now_s()
        return {
            "process": process,
            "streams": streams,
            "threads": threads,
            "since_us": since_us,
            "up_s": round(now_s - since_s, 3),
            "failing": self._failed_s is not None and now_s - self._failed_s < FAILING_S,
        }
