"""Asks one venue for past trades: waits for the shared budget while there is time, and tells a refusal from an answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from app.errors import FrameRejected, Interrupted, VenueUnavailable
from app.exchanges.base import Exchange
from app.exchanges.history.base import Ask, Between, History, Page, Refused
from app.interruptible import interruptible
from app.pipeline.rest import Answer, Rest

#: While it waits, it looks so often whether to go on.
LOOK_S = 0.1


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
        """One answer; a refusal only where asking again is of no use. Raises: VenueUnavailable; Interrupted, soon after
        `keep_going` says no."""
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
                answer = interruptible(partial(rest.get, path), self._over, f"ask {rest.venue}")
                self.requests += 1
                return answer
            except VenueUnavailable as error:
                again_s = self._now_s() + error.wait_s
                if not error.wait_s or again_s > self._until_s:
                    raise
            while (left_s := again_s - self._now_s()) > 0:
                if self._over():
                    raise Interrupted(f"ask {rest.venue}")
                self._wait(min(left_s, LOOK_S))

    def _over(self) -> bool:
        return not self._keep_going()
