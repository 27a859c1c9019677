"""Asks a venue over REST, within the budget that all workers share, and obeys when it says to stay away."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import httpx

from app.buffer.budget import Budget
from app.connection.backoff import DEFAULT_RETRY_AFTER_S, told_s
from app.errors import VenueUnavailable
from app.exchanges.base import Pace

TIMEOUT_S = 5.0
#: An answer takes at most so long and so much, however slowly it trickles.
ANSWER_S = 20.0
MAX_BODY_BYTES = 32 * 1024 * 1024


class Answer(NamedTuple):
    status: int
    body: bytes


class Rest:
    """The REST of one venue. Safe to share between threads."""

    def __init__(
        self, venue: str, url: str, proxy: str | None, pace: Pace, budget: Budget, monotonic_s: Callable[[], float]
    ) -> None:
        self.venue = venue
        self._url, self._proxy, self._pace, self._budget = url.rstrip("/"), proxy, pace, budget
        self._now_s = monotonic_s

    def get(self, path: str) -> Answer:
        """The answer to one GET of `path` below the venue's URL: neither 429, 418 nor of the 5xx.

        Raises: VenueUnavailable, at once where the budget is used up; BufferUnavailable.
        """
        wait_s = self._budget.take(self.venue, "rest", self._pace)
        if wait_s > 0:
            raise VenueUnavailable(self.venue, f"the shared budget of requests is used up for {wait_s:.1f} s", wait_s)
        try:
            answer, retry_after = self._ask(path)
        except httpx.HTTPError as error:
            raise VenueUnavailable(self.venue, f"{type(error).__name__}: {error}") from error
        if answer.status in (418, 429):
            told = told_s(retry_after)
            self.stay_away(f"HTTP {answer.status}", DEFAULT_RETRY_AFTER_S if told is None else told)
        if answer.status >= 500:
            raise VenueUnavailable(self.venue, f"HTTP {answer.status}")
        return answer

    def stay_away(self, words: str, seconds: float) -> None:
        """The venue wants to be left alone: every worker obeys. Raises: VenueUnavailable, always; BufferUnavailable."""
        self._budget.block(self.venue, seconds)
        raise VenueUnavailable(self.venue, f"{words}: nobody asks for {seconds:.0f} s", seconds)

    def _ask(self, path: str) -> tuple[Answer, str]:
        until_s = self._now_s() + ANSWER_S
        body = bytearray()
        with httpx.stream(
            "GET",
            self._url + path,
            timeout=TIMEOUT_S,
            proxy=self._proxy,
            trust_env=False,
            headers={"User-Agent": "collector"},
        ) as response:
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_BODY_BYTES or self._now_s() > until_s:
                    raise VenueUnavailable(self.venue, f"an answer of more than {len(body)} bytes or {ANSWER_S:.0f} s")
        return Answer(response.status_code, bytes(body)), response.headers.get("retry-after", "")
