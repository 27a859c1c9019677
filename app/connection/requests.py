"""Client messages that wait for their turn: at most the venue's messages a second, and requests an hour. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from app.connection.actions import Send
from app.exchanges.base import Limits, Request


class Requests:
    """The requests of one connection, in order; those that were sent are remembered by their id."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[Request] = deque()
        #: When each request of the last hour was sent.
        self._sent_s: deque[float] = deque()
        self._last_sent_s: float | None = None
        self._asked: dict[str, Request] = {}

    def add(self, requests: Iterable[Request]) -> None:
        """Send these when it is their turn."""
        self._waiting.extend(requests)

    def ask_anew(self, wanted: Sequence[Request]) -> None:
        """Ask for a feed anew, unless it is still to be asked for: that request starts it anew by itself.

        All or nothing: to add the unsubscribing alone, behind a subscribing that waits already, would end the feed.
        """
        if wanted[-1] not in self._waiting:
            self._waiting.extend(wanted)

    def sent(self, request_id: str) -> Request | None:
        """The request that an answer is to."""
        return self._asked.get(request_id)

    def waiting_feeds(self) -> set[tuple[str, str]]:
        """What is still to be asked for."""
        return {feed for request in self._waiting for feed in request.feeds}

    def due(self, now_s: float) -> list[Send]:
        """What may be sent by now."""
        due = []
        while self._sent_s and now_s - self._sent_s[0] > 3600.0:
            self._sent_s.popleft()
        hourly = self._limits.requests_per_hour
        while self._waiting and (
            self._last_sent_s is None or now_s - self._last_sent_s >= 1.0 / self._limits.messages_per_s
        ):
            if hourly is not None and len(self._sent_s) >= hourly:
                break
            request = self._waiting.popleft()
            self._sent_s.append(now_s)
            self._last_sent_s = now_s
            if request.id:
                self._asked[request.id] = request
            due.append(Send(request.frame, request.sign))
        return due
