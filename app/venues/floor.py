"""The trading floor: which markets run, who gets which topic, stop and start.

A market opens with its first subscription and from then on trades whether or not somebody listens, so that an outage
costs a collector what it would cost it in life. A topic's frame is made once and sent to all its subscribers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from app.clock import monotonic_s
from app.venues.connection import Connection
from app.venues.dialect import Frame, Join, Topic, Venue
from app.venues.replay import Recording

#: How often sessions and silent topics are asked what the time demands, in seconds.
TIMER_S = 0.25
#: A market that is behind by more than this skips what it missed.
ARREARS_S = 1.0
#: Recorded frames start when a connection has not subscribed to anything more for so long: most then come in their order.
SETTLE_US = 1_000_000
#: How long stopping waits for clients to take what is queued.
DRAIN_S = 10.0


class Floor:
    """Runs the markets of all venues at `rate` steps a second each; with recordings, replays those instead."""

    def __init__(self, rate: float, now_us: Callable[[], int], recordings: dict[str, Recording] | None = None) -> None:
        self.rate, self.now_us, self.recordings = rate, now_us, recordings
        self.connections: set[Connection] = set()
        self._running = asyncio.Event()
        self._running.set()
        #: (venue, topic name) -> subscribers, in order of their subscription.
        self._subscribers: dict[tuple[str, str], dict[Connection, None]] = {}
        #: (venue, symbol) -> topics somebody asked for.
        self._topics: dict[tuple[str, str], dict[str, Topic]] = {}
        #: Subscriptions made while stopped: they open at the start.
        self._late: dict[tuple[Connection, str], Join] = {}
        #: Replay: the recorded topics that a connection wants, and when it last asked for one.
        self._wanted: dict[Connection, set[str]] = {}
        self._joined_us: dict[Connection, int] = {}
        self._tasks: dict[object, asyncio.Task[None]] = {}
        #: While something is to go wrong: told the time some times a second; the factor of a market's rate and the
        #: microseconds by which its clock is wrong; what its topics send out of turn.
        self.tick: Callable[[int], None] | None = None
        self.tempo: Callable[[str, str], tuple[float, int]] | None = None
        self.upset: Callable[[Venue, str, int], Iterable[tuple[str, list[Frame]]]] | None = None

    @property
    def stopped(self) -> bool:
        """Whether no data is being generated."""
        return not self._running.is_set()

    def open(self) -> None:
        """Start the timer of sessions and silent topics."""
        self._begin("timer", self._timer())

    def close(self) -> list[asyncio.Task[None]]:
        """End every task of the floor; nothing is generated any more. Returns the tasks, to be waited for."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        return tasks

    async def stop(self) -> bool:
        """Generate nothing more; connections stay open. Returns whether clients took everything within 10 s."""
        self._running.clear()
        waits = [asyncio.create_task(connection.drained()) for connection in self.connections]
        if not waits:
            return True
        _, pending = await asyncio.wait(waits, timeout=DRAIN_S)
        for task in pending:
            task.cancel()
        return not pending

    def start(self) -> None:
        """Go on after `stop`; subscriptions made meanwhile begin now."""
        if self.stopped:
            self._running.set()
            late, self._late = self._late, {}
            for (connection, _), wish in late.items():
                self.join(connection, wish)

    def admit(self, connection: Connection) -> None:
        """A client is there."""
        self.connections.add(connection)
        self._wanted[connection] = set()

    def gone(self, connection: Connection) -> None:
        """A client is not there any more."""
        self.connections.discard(connection)
        self._joined_us.pop(connection, None)
        self._wanted.pop(connection, None)
        self._late = {late: wish for late, wish in self._late.items() if late[0] is not connection}
        for subscribers in self._subscribers.values():
            subscribers.pop(connection, None)
        if player := self._tasks.get(connection):
            player.cancel()

    def join(self, connection: Connection, wish: Join) -> None:
        """Subscribe; nothing follows where the topic does not exist."""
        venue, now_us = connection.venue, self.now_us()
        if self.recordings is not None:
            self._joined_us[connection] = now_us
            self._wanted[connection].add(venue.recorded_as(wish.topic))
            if connection not in self._tasks:
                self._begin(connection, self._play(connection))
            return
        topic = venue.topic(wish.topic, now_us)
        if topic is None:
            return
        if self.stopped and topic.feed:
            self._late[connection, wish.topic] = wish
            return
        now_us += self._tempo(venue.name, topic.symbol)[1]
        subscribers = self._subscribers.setdefault((venue.name, topic.name), {})
        if not subscribers:
            topic.begin(now_us)
        if wish.live:
            subscribers[connection] = None
        if wish.opening:
            for frame in topic.opening(now_us):
                connection.put(frame)
        market = venue.name, topic.symbol
        self._topics.setdefault(market, {})[topic.name] = topic
        if market not in self._tasks:
            self._begin(market, self._trade(venue, topic.symbol))

    def leave(self, connection: Connection, topic: str) -> None:
        """Unsubscribe."""
        self._subscribers.get((connection.venue.name, topic), {}).pop(connection, None)
        self._wanted[connection].discard(connection.venue.recorded_as(topic))
        self._late.pop((connection, topic), None)

    def topics(self, venue: str, symbol: str) -> list[Topic]:
        """The topics of a market that somebody is subscribed to."""
        found = self._topics.get((venue, symbol), {}).values()
        return [topic for topic in found if self._subscribers[venue, topic.name]]

    def running(self, venue: str) -> list[str]:
        """The symbols of a venue's markets that are open."""
        return [symbol for name, symbol in self._topics if name == venue]

    def publish(self, venue: str, topic: str, frames: list[Frame]) -> None:
        """Send frames to a topic's subscribers."""
        _publish(frames, self._subscribers[venue, topic])

    def _tempo(self, venue: str, symbol: str) -> tuple[float, int]:
        return self.tempo(venue, symbol) if self.tempo else (1.0, 0)

    def _begin(self, key: object, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[key] = asyncio.create_task(work)
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: object, task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled() and (fault := task.exception()):
            # A venue that fell silent by a fault of ours must not look like a quiet one.
            asyncio.get_running_loop().call_exception_handler({"message": f"{key} ended", "exception": fault})

    async def _trade(self, venue: Venue, symbol: str) -> None:
        """Step one market for ever, `rate` times a second."""
        market = venue.market(symbol, self.now_us())
        topics = self._topics[venue.name, symbol]
        due_s = monotonic_s()
        while True:
            factor, _ = self._tempo(venue.name, symbol)
            due_s = max(due_s + 1 / (self.rate * factor), monotonic_s() - ARREARS_S)
            await asyncio.sleep(max(0.0, due_s - monotonic_s()))
            if self.stopped:
                await self._running.wait()
                due_s = monotonic_s()
            now_us = self.now_us() + self._tempo(venue.name, symbol)[1]
            if self.upset:
                for name, frames in self.upset(venue, symbol, now_us):
                    self.publish(venue.name, name, frames)
            for step in venue.steps(market, now_us):
                for topic in topics.values():
                    if subscribers := self._subscribers[venue.name, topic.name]:
                        _publish(topic.advance(step, now_us), subscribers)

    async def _timer(self) -> None:
        """Ask sessions and silent topics what the time demands."""
        while True:
            await asyncio.sleep(TIMER_S)
            now_us = self.now_us()
            if self.tick:
                self.tick(now_us)
            for connection in list(self.connections):
                pushed_us = 0 if connection.venue.strict else connection.pushed_us
                actions = connection.session.due(now_us, connection.heard_us, pushed_us)
                connection.perform(actions, self)
            for (venue, symbol), topics in self._topics.items():
                topic_us = now_us + self._tempo(venue, symbol)[1]
                for topic in topics.values():
                    subscribers = self._subscribers[venue, topic.name]
                    if subscribers and not (self.stopped and topic.feed):
                        _publish(topic.quiet(topic_us), subscribers)

    async def _play(self, connection: Connection) -> None:
        """Send the recording of the connection's venue: each topic's frames once, also where it is asked for later."""
        recording, wanted = (self.recordings or {}).get(connection.venue.name), self._wanted[connection]
        frames = recording.frames if recording else []
        played: set[str] = set()
        while True:
            left_us = self._joined_us[connection] + SETTLE_US - self.now_us()
            if left_us > 0 or wanted <= played:
                await asyncio.sleep(max(left_us / 1e6, TIMER_S))
                continue
            playing = wanted - played
            played |= playing
            due_s = monotonic_s()
            for topic, frame in frames:
                if topic not in playing or topic not in wanted:
                    continue
                if self.rate:
                    due_s = max(due_s + 1 / self.rate, monotonic_s() - ARREARS_S)
                    await asyncio.sleep(max(0.0, due_s - monotonic_s()))
                await connection.room()
                await self._running.wait()
                connection.put(frame)


def _publish(frames: list[Frame], subscribers: dict[Connection, None]) -> None:
    for frame in frames:
        for connection in subscribers:
            connection.put(frame)
