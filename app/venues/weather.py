"""The rules that markets feel, and clocks: shifted time, bursts, restarted numbers, heartbeats, age, dead clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from app.venues import tricks
from app.venues.connection import Connection
from app.venues.dialect import Frame, Venue
from app.venues.rules import Rule

if TYPE_CHECKING:
    from app.venues.mischief import Mischief


class Weather:
    """`patience` is what the waits of all heartbeat rules are multiplied by, whatever rules stand."""

    def __init__(self, mischief: Mischief, patience: float) -> None:
        self._mischief, self._floor, self.patience = mischief, mischief.floor, patience
        #: Half-open connections whose client may be gone without our hearing of it.
        self._silent: list[Connection] = []
        #: (rule, connection) that were closed for their age.
        self._closed: set[tuple[int, int]] = set()

    def rewire(self) -> None:
        """The rules are others now: hook in where one needs it, and nowhere else."""
        self._floor.tempo = self.tempo if self._mischief.of("skew", "burst") else None
        self._floor.upset = self.upset if self._mischief.of("reset") else None
        self._floor.tick = self.tick if self._silent or self._mischief.of("heartbeat", "max-age") else None
        self.tick(self._mischief.now_us())

    def watch(self, connection: Connection) -> None:
        """This connection is half open: end it when its client is gone."""
        self._silent.append(connection)
        self._floor.tick = self.tick

    def reset_now(self, rule: Rule) -> list[dict[str, Any]]:
        """Start the numbers over in every market that the rule fits. Returns which."""
        done, now_us = [], self._mischief.now_us()
        for venue in self._mischief.venues.values():
            for symbol in self._floor.running(venue.name):
                if rule.awake(now_us) and rule.fits(venue.name, symbol) and self._resettable(venue, symbol):
                    rule.struck += 1
                    for topic, frames in self._reset(rule, venue, symbol, now_us):
                        self._floor.publish(venue.name, topic, frames)
                    done.append({"venue": venue.name, "symbol": symbol})
        return done

    def tempo(self, venue: str, symbol: str) -> tuple[float, int]:
        now_us, factor, skew_us = self._mischief.now_us(), 1.0, 0
        for rule in self._mischief.of("skew", "burst"):
            if rule.awake(now_us) and rule.fits(venue, symbol):
                self._mischief.tell_once(rule, venue, None, {"symbol": symbol} | rule.params)
                factor *= rule.params.get("factor", 1)
                skew_us += rule.params.get("ms", 0) * 1000
        return factor, skew_us

    def upset(self, venue: Venue, symbol: str, now_us: int) -> Iterator[tuple[str, list[Frame]]]:
        for rule in self._mischief.of("reset"):
            may = (
                rule.awake(self._mischief.now_us())
                and rule.fits(venue.name, symbol)
                and self._resettable(venue, symbol)
            )
            if may and rule.strikes(f"{venue.name}:{symbol}"):
                yield from self._reset(rule, venue, symbol, now_us)

    def _resettable(self, venue: Venue, symbol: str) -> bool:
        return any(topic.restarts for topic in self._floor.topics(venue.name, symbol))

    def _reset(self, rule: Rule, venue: Venue, symbol: str, now_us: int) -> Iterator[tuple[str, list[Frame]]]:
        for topic in self._floor.topics(venue.name, symbol):
            if topic.restarts:
                self._mischief.tell(rule, venue.name, None, {"symbol": symbol, "feed": topic.feed, "topic": topic.name})
                yield topic.name, topic.restarted(now_us)

    def tick(self, now_us: int) -> None:
        """What depends on the time alone."""
        beats = [rule for rule in self._mischief.of("heartbeat") if rule.awake(now_us)]
        for venue in self._mischief.venues.values():
            fitting = [rule for rule in beats if rule.fits(venue.name)]
            venue.patience = self.patience
            venue.strict = any(rule.params["strict"] == "yes" for rule in fitting)
            for rule in fitting:
                venue.patience *= rule.params["scale"]
                self._mischief.tell_once(rule, venue.name, None, rule.params)
        for rule in self._mischief.of("max-age"):
            for connection in self._floor.connections:
                self._age(rule, connection, now_us)
        for connection in self._silent[:]:
            if tricks.left(connection):
                self._silent.remove(connection)
                connection.socket.transport.abort()

    def _age(self, rule: Rule, connection: Connection, now_us: int) -> None:
        old = now_us - connection.session.opened_us >= rule.params["age_s"] * 1e6
        fits = rule.fits(connection.venue.name, connection=connection.number) and not connection.ended
        if old and fits and rule.awake(now_us) and (rule.number, connection.number) not in self._closed:
            self._closed.add((rule.number, connection.number))
            rule.struck += 1
            self._mischief.tell(rule, connection.venue.name, connection.number, {"code": rule.params["code"]})
            connection.close(rule.params["code"], "too old")
