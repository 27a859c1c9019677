"""A venue of the built-in exchanges with a market that has traded, and its REST answers as values."""

from __future__ import annotations

import json
from typing import Any

from app.venues.dialect import Venue
from app.venues.tape import Trade

#: 2026-09-21T14:13:20.123456Z
NOW_US = 1_790_000_000_123_456


class Traded:
    """`venue` after `steps` steps of one market, 100 ms apart; `trades` are all it made, oldest first."""

    def __init__(self, venue: type[Venue], symbol: str, steps: int = 60) -> None:
        self.venue = venue(venue.listing(), 7, 1_000)
        self.market = self.venue.market(symbol, NOW_US)
        self.trades: list[Trade] = [self.market.last_trade]
        self.now_us = NOW_US
        for _ in range(steps):
            self.now_us += 100_000
            for step in self.venue.steps(self.market, self.now_us):
                self.trades += step.trades

    def get(self, path: str, **query: object) -> Any:
        """The body of an answer that is a success."""
        status, body, _ = self.ask(path, **query)
        assert status == 200
        return body

    def ask(self, path: str, **query: object) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers of an answer."""
        found = self.venue.rest(path, {key: str(value) for key, value in query.items()}, self.now_us)
        assert found is not None
        return found.status, json.loads(found.body), dict(found.headers)

    def frames(self, topic: str, steps: int = 20) -> list[Any]:
        """What a subscriber of the topic gets from now on; the trades made meanwhile are added to `trades`."""
        made = self.venue.topic(topic, self.now_us)
        assert made is not None
        made.begin(self.now_us)
        texts = []
        for _ in range(steps):
            self.now_us += 100_000
            for step in self.venue.steps(self.market, self.now_us):
                self.trades += step.trades
                texts += [frame.text for frame in made.advance(step, self.now_us)]
        return [json.loads(text) for text in texts]
