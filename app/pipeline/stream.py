"""One stream, from its lease to its last batch: connections one after another, and the sender.

The thread that calls `run` watches. Sockets are read on one thread of the process (app/pipeline/reader.py), which never
waits for Redis, SQLite or S3; batches leave on another (app/pipeline/carrier.py). Where an end can be foreseen the next
connection is opened first, and takes the place of the old one when it has its data. A plain class: a Celery task calls it
(tasks/streams.py), and so may a test or a shell.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from app import telemetry
from app.config import Settings
from app.connection.actions import Rotate
from app.connection.backoff import delay_s
from app.exchanges.base import Exchange, Signer
from app.pipeline.carrier import Carrier
from app.pipeline.connection import UNMETERED, Connection, Ground, Venue
from app.pipeline.link import Progress
from app.pipeline.outbox import Outbox
from app.pipeline.plan import PLAN_CHANGED, Stream
from app.pipeline.reader import TICK_S, Reader
from app.pipeline.sender import Sender

#: A connection that is told to end has its end on record after so long, or none.
GOODBYE_AT_MOST_S = 6.0
#: After that, until what neither Redis nor the spool has taken is given up.
DRAIN_S = 6.0


class StreamRunner:
    """Collects one stream until `stop` is set, its lease is lost, or another worker is to have it."""

    def __init__(
        self,
        stream: Stream,
        exchange: Exchange,
        settings: Settings,
        *,
        outbox: Outbox,
        sender: Sender,
        stop: threading.Event,
        reader: Reader,
        carrier: Carrier,
        monotonic_s: Callable[[], float],
        wall_us: Callable[[], int],
        unlisted: Callable[[Stream], dict[str, str] | None] = lambda stream: {},
        planned: Callable[[], Stream | None] | None = None,
        venue: Venue = UNMETERED,
        signer: Signer | None = None,
    ) -> None:
        self.stream = stream
        self.progress = Progress()
        self._websocket = settings.websocket
        self._outbox, self._sender = outbox, sender
        self._stop, self._carrier = stop, carrier
        #: The stream of this name as the newest plan has it, None where it has none. Asks nobody.
        self._planned = planned or (lambda: stream)
        self._now_s = monotonic_s
        self._begun_us = wall_us()
        self._ground = Ground(
            exchange, settings, outbox, self.progress, venue, signer, unlisted, self._over, reader, monotonic_s, wall_us
        )
        #: The connection that counts, and the one that is to take its place.
        self._current: Connection | None = None
        self._successor: Connection | None = None
        #: Why it is to do so.
        self._rotation = Rotate("planned_rotation")
        #: The last one that was open and is over: the next one takes up what it knew.
        self._ended: Connection | None = None
        #: The connection whose end has been looked at.
        self._judged: Connection | None = None
        self._failures = 0
        self._next_s = 0.0
        #: When each (symbol, feed) last had data, whichever connection brought it.
        self._last_us: dict[tuple[str, str], int] = {}

    def run(self) -> str:
        """Connect, watch, reconnect; returns why it ended. The caller holds the lease and releases it afterwards."""
        self._carrier.carry(self._sender)
        telemetry.stream_started(self.stream.name, len(self.stream.subscription.symbols))
        try:
            while not (reason := self._over()):
                self._watch()
                self._stop.wait(TICK_S)
        finally:
            for connection in (self._current, self._successor):
                if connection is not None:
                    connection.join(GOODBYE_AT_MOST_S)
            self._sender.finish(self._now_s() + DRAIN_S)
            # A disk may hold it up for ever: the watchdog of the process then ends both, and says so.
            self._sender.finished.wait()
        return reason

    def _over(self) -> str:
        if self._stop.is_set():
            return "stop"
        if self._sender.lost.is_set():
            return "lease_lost"
        if self._sender.handed_over.is_set():
            return "handed_over"
        if self._sender.finished.is_set():
            return "sender_died"
        if (planned := self._planned()) is None:
            return "market_removed"
        # Another feed of the venue is another protocol: the stream begins anew, here or elsewhere.
        return PLAN_CHANGED if planned.source != self.stream.source else ""

    def _watch(self) -> None:
        """Whatever is due by now: a connection after the last one's end, or one to take the place of one that goes on."""
        planned = self._planned()
        if planned is not None and planned.source == self.stream.source:
            self.stream = planned  # what connects from now on connects by this
        current, successor = self._current, self._successor
        if successor is not None and successor.finished.is_set():
            successor = self._successor = None
            self._failures += 1
            self._next_s = self._now_s() + self._pause_s(self._failures)
        if current is None or current.finished.is_set():
            self._succeed(current, successor)
        elif successor is not None:
            if successor.may_replace(current):
                current.end(self._rotation.reason, self._rotation.detail)
        elif self._now_s() < self._next_s:
            return  # a wish lasts, or is said again
        elif (wish := Rotate(PLAN_CHANGED) if current.stream != self.stream else current.wish) is not None:
            self._rotation, current.wish = wish, None
            telemetry.rotation_begun(self.stream.name, self._rotation.reason, self._rotation.detail)
            self._successor = self._begin(current)

    def _succeed(self, ended: Connection | None, successor: Connection | None) -> None:
        """Put another connection in the place of one that is over: the one that waits for it, else a new one in time."""
        if ended is not None and ended is not self._judged:
            self._judged = ended
            self._ended = ended if ended.opened else self._ended
            self._failures = 0 if ended.brought_data else self._failures + 1
            self._next_s = self._now_s() + self._pause_s(max(self._failures, 1))
        if successor is not None:
            if ended is not None and ended.opened:
                successor.joins.put(ended.continuity)
            self._current, self._successor = successor, None
        elif self._now_s() >= self._next_s:
            self._current = self._begin(self._ended)

    def _begin(self, before: Connection | None) -> Connection:
        connection = Connection(self._ground, self.stream, before, self._failures)
        connection.start()
        return connection

    def _pause_s(self, failures: int) -> float:
        websocket = self._websocket
        return delay_s(failures, websocket.initial_retry_delay_secs, websocket.max_retry_delay_secs, random.random())

    def state(self, now_s: float) -> dict[str, Any]:
        """What is published on the board: the connection, and every feed with its state, since when and why."""
        current, successor, progress = self._current, self._successor, self.progress
        session = current.session if current is not None else None
        now_us = self._ground.wall_us()
        feeds = []
        for (symbol, feed), status in list(session.feeds.items()) if session else []:
            if status.rhythm.last_s == status.last_data_s:  # else nothing has come on this connection
                self._last_us[symbol, feed] = now_us - int((now_s - status.last_data_s) * 1_000_000)
            feeds.append(
                {
                    "symbol": symbol,
                    "feed": feed,
                    "state": status.state.value if current and current.state == "open" else "subscribing",
                    "since_us": status.since_us,
                    "why": status.why,
                    "age_s": round(now_s - status.last_data_s, 3),
                    "last_us": self._last_us.get((symbol, feed)),
                    "interval_s": status.rhythm.interval_s and round(status.rhythm.interval_s, 4),
                }
            )
        shown = current.shown() if current is not None else {
            "connection": "connecting", "since_us": self._begun_us, "why": "", "epoch": "",
        }  # fmt: skip
        return {
            "stream": self.stream.name,
            "exchange": self.stream.exchange,
            **shown,
            "successor": successor.shown() if successor is not None else None,
            "connections_opened": progress.opened_count,
            "frames": progress.frames,
            "events": progress.events,
            "refused": self._outbox.refused,
            "spool_refusal": self._sender.spool_refusal,
            "spool_bytes": self._sender.spool_bytes,
            "spool_events": self._sender.spool_events,
            "offset_us": self._sender.latency.offset_us(now_s),
            "queued": self._outbox.queued,
            "last_data_us": progress.last_data_us,
            "last_error": session.last_error if session else "",
            "closes": progress.closes,
            "ends": list(progress.ends),
            "feeds": feeds,
        }
