"""One stream, from its lease to its last batch: socket -> session -> outbox, with the sender on its own thread.

The thread that calls `run` reads the socket and never waits for Redis, SQLite or S3. A plain class: a Celery task calls
it (tasks/streams.py), and so may a test or a shell.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from app import telemetry
from app.config import Settings
from app.connection.actions import Close
from app.connection.backoff import DEFAULT_RETRY_AFTER_S, delay_s
from app.connection.freshness import Rhythm
from app.connection.session import Session
from app.connection.socket import ConnectionFailed, Socket
from app.exchanges.base import Exchange, Signer
from app.pipeline.link import TICK_S, Link, Progress
from app.pipeline.outbox import Epoch, Outbox
from app.pipeline.plan import PLAN_CHANGED, Stream
from app.pipeline.sender import Sender
from app.sequence import Continuity

#: From the request to stop until what is left goes to the spool and the thread ends.
DRAIN_S = 10.0
#: While the venue's budget is used up, it is asked again at least so often.
ADMIT_AGAIN_S = 5.0


class Venue(NamedTuple):
    """What all workers have to agree on about one venue."""

    #: Seconds to wait before the next connection attempt; 0.0 when it may go now, and is counted.
    admit: Callable[[], float]
    #: Nobody is to try for so many seconds.
    stay_away: Callable[[float], None]


UNMETERED = Venue(lambda: 0.0, lambda seconds: None)


class StreamRunner:
    """Collects one stream until `stop` is set or its lease is lost."""

    def __init__(
        self,
        stream: Stream,
        exchange: Exchange,
        settings: Settings,
        *,
        outbox: Outbox,
        sender: Sender,
        stop: threading.Event,
        monotonic_s: Callable[[], float],
        wall_us: Callable[[], int],
        unlisted: Callable[[Stream], dict[str, str]] = lambda stream: {},
        planned: Callable[[], Stream | None] | None = None,
        venue: Venue = UNMETERED,
        signer: Signer | None = None,
    ) -> None:
        self.stream = stream
        self.progress = Progress(since_us=wall_us())
        self._exchange, self._settings = exchange, settings
        self._outbox, self._sender = outbox, sender
        self._stop = stop
        self._now_s, self._now_us = monotonic_s, wall_us
        self._unlisted = unlisted
        #: The stream of this name as the newest plan has it, None where it has none. Asks nobody.
        self._planned = planned or (lambda: stream)
        self._venue = venue
        self._rhythms: dict[tuple[str, str], Rhythm] = {}
        self._signer = signer
        self._continuity = Continuity()
        self._session: Session | None = None
        self._drain_until_s: float | None = None

    def run(self) -> str:
        """Connect, read, reconnect; returns why it ended. The caller holds the lease and releases it afterwards."""
        thread = threading.Thread(target=self._sender.run, args=(lambda: self._drain_until_s,), daemon=True)
        thread.name = f"sender {self.stream.name}"
        thread.start()
        telemetry.stream_started(self.stream.name, len(self.stream.subscription.symbols))
        failures = 0
        try:
            while not (reason := self._over()):
                events = self.progress.events
                self._connect_once(failures)
                failures = 0 if self.progress.events > events else failures + 1
                self._wait(delay_s(max(failures, 1), *self._retry(), random.random()))
        finally:
            self._drain_until_s = self._now_s() + DRAIN_S
            self._outbox.close()
            thread.join(DRAIN_S + 5)
        return reason

    def _retry(self) -> tuple[float, float]:
        websocket = self._settings.websocket
        return websocket.initial_retry_delay_secs, websocket.max_retry_delay_secs

    def _over(self) -> str:
        if self._stop.is_set():
            return "stop"
        if self._sender.lost.is_set():
            return "lease_lost"
        if self._sender.finished.is_set():
            return "sender_died"
        if (planned := self._planned()) is None:
            return "market_removed"
        return PLAN_CHANGED if planned != self.stream else ""

    def _wait(self, seconds: float) -> None:
        until_s = self._now_s() + seconds
        while (left_s := until_s - self._now_s()) > 0 and not self._over():
            self._stop.wait(min(left_s, TICK_S))

    def _connect_once(self, failures: int) -> None:
        """One epoch, from handshake to its end on record; nothing where no connection came about."""
        if not self._admitted():
            return
        self._say("connecting")
        websocket = self._settings.websocket
        unlisted = self._unlisted(self.stream)
        try:
            socket = Socket(
                self._exchange.endpoint(self.stream.ws_url, self.stream.subscription),
                connect_timeout_s=websocket.connect_timeout_secs,
                max_frame_bytes=websocket.max_frame_bytes,
                proxy=self.stream.proxy,
            )
        except ConnectionFailed as error:
            self._refused(error, failures)
            return
        epoch = uuid.uuid4().hex
        self._outbox.begin(Epoch(epoch, self._now_us()))
        self.progress.epoch = epoch
        self.progress.opened_count += 1
        self._say("open")
        telemetry.connection_opened(self.stream.name, epoch)
        session = self._session = Session(
            self._exchange,
            self.stream.subscription,
            self._continuity,
            epoch=epoch,
            dead_timeout_s=websocket.message_timeout_secs,
            data_timeout_s=self.stream.data_timeout_s,
            rhythms=self._rhythms,
        )
        frames, opened_s = self.progress.frames, self._now_s()
        close = Close("error", "unexpected")
        try:
            link = Link(
                self.stream.name, socket, session, self._outbox, self.progress, over=self._over,
                unlisted=lambda: self._unlisted(self.stream), signer=self._signer, monotonic_s=self._now_s,
                wall_us=self._now_us,
            )  # fmt: skip
            close = link.run(unlisted)
        finally:
            socket.close()
            self._outbox.end(session.end(self._now_us(), close.reason))
            self._say("closed", f"{close.reason}: {close.detail}")
            self.progress.closes[close.reason] = self.progress.closes.get(close.reason, 0) + 1
            newest_s = max((status.last_data_s for status in session.feeds.values()), default=opened_s)
            since_data_s = self._now_s() - newest_s if newest_s > opened_s else None
            telemetry.connection_closed(
                self.stream.name, close.reason, close.detail, self.progress.frames - frames, since_data_s
            )

    def _admitted(self) -> bool:
        """Wait for the venue's budget of connection attempts, which all workers share; False when it is time to end."""
        while not self._over():
            wait_s = self._venue.admit()
            if wait_s <= 0:
                return True
            self._say("waiting", f"for the venue's budget of connection attempts, {wait_s:.0f} s")
            self._wait(min(wait_s, ADMIT_AGAIN_S))
        return False

    def _refused(self, error: ConnectionFailed, failures: int) -> None:
        """Give a refusal its name and its remedy; a venue that tells us to stay away is obeyed by all workers."""
        detail = str(error)
        state = "failed"
        if error.status in (418, 429):
            wait_s = error.retry_after_s or DEFAULT_RETRY_AFTER_S
            self._venue.stay_away(wait_s)
            state, detail = "rate_limited", f"{detail}: all workers stay away for {wait_s:.0f} s"
        elif error.status in (403, 451):
            name = self.stream.exchange
            state = "refused"
            detail = f"{detail}: it does not serve this place; set [exchanges.{name}] ws_url, rest_url or proxy"
        self._say(state, detail)
        telemetry.connection_failed(self.stream.name, detail, delay_s(failures + 1, *self._retry(), 0.5))

    def _say(self, connection: str, why: str = "") -> None:
        self.progress.connection, self.progress.since_us, self.progress.why = connection, self._now_us(), why

    def state(self, now_s: float) -> dict[str, Any]:
        """What is published on the board: the connection, and every feed with its state, since when and why."""
        session, progress = self._session, self.progress
        feeds = []
        for (symbol, feed), status in list(session.feeds.items()) if session else []:
            feeds.append(
                {
                    "symbol": symbol,
                    "feed": feed,
                    "state": status.state.value if progress.connection == "open" else "subscribing",
                    "since_us": status.since_us,
                    "why": status.why,
                    "age_s": round(now_s - status.last_data_s, 3),
                    "interval_s": status.rhythm.interval_s and round(status.rhythm.interval_s, 4),
                }
            )
        return {
            "stream": self.stream.name,
            "exchange": self.stream.exchange,
            "connection": progress.connection,
            "since_us": progress.since_us,
            "why": progress.why,
            "epoch": progress.epoch,
            "connections_opened": progress.opened_count,
            "frames": progress.frames,
            "events": progress.events,
            "refused": self._outbox.refused,
            "queued": self._outbox.queued,
            "last_data_us": progress.last_data_us,
            "last_error": session.last_error if session else "",
            "closes": progress.closes,
            "feeds": feeds,
        }
