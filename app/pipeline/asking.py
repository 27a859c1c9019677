"""Asks one venue for past trades: waits for the shared budget while there is time, and tells a refusal from an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from app.errors import FrameRejected, VenueUnavailable
from app.exchanges.base import Exchange
from app.exchanges.history.base import Ask, Between, History, Page, Refused
from app.pipeline.rest import Answer, Rest


class Venue(NamedTuple):
    """One exchange as repairs know it. `history` None: it tells nothing of the past."""

    exchange: Exchange
    history: History | None
    rest: Rest


class Asking:
    """The questions of one run, which is over at `until_s` or when `keep_going` says no."""

    def __init__(
        self,
        until_s: float,
        keep_going: Callable[[], bool],
        *,
        wall_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        wait: Callable[[float], object],
    ) -> None:
        self._until_s, self._keep_going = until_s, keep_going
        self._now_us, self._now_s, self._wait = wall_us, monotonic_s, wait
        self.requests = 0

    def going(self) -> bool:
        """Whether there is time for more."""
        return self._keep_going() and self._now_s() < self._until_s

    def page(self, venue: Venue, history: History, wanted: Between, ask: Ask) -> Page | Refused:
        """One answer; a refusal only where asking again is of no use. Raises: VenueUnavailable."""
        answer = self._get(venue.rest, ask.path)
        try:
            page = history.read(wanted, ask, answer.status, answer.body, self._now_us())
        except FrameRejected as error:
            raise VenueUnavailable(venue.rest.venue, str(error)) from error
        if isinstance(page, Page) or page.gone:
            return page
        if page.stay_away_s:
            venue.rest.stay_away(page.words, page.stay_away_s)
        raise VenueUnavailable(venue.rest.venue, page.words)

    def _get(self, rest: Rest, path: str) -> Answer:
        while True:
            try:
                answer = rest.get(path)
                self.requests += 1
                return answer
            except VenueUnavailable as error:
                if not error.wait_s or self._now_s() + error.wait_s > self._until_s or not self._keep_going():
                    raise
                self._wait(error.wait_s)
