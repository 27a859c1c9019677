"""One stream, from its lease to its last batch: socket -> session -> outbox, with the sender on its own thread.

The thread that calls `run` reads the socket and never waits for Redis, SQLite or S3. A plain class: a Celery task calls
it (tasks/streams.py), and so may a test or a shell.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app import telemetry
from app.config import Settings
from app.connection.backoff import delay_s
from app.connection.session import Close, FeedState, Send, Session
from app.connection.socket import ConnectionEnded, ConnectionFailed, FrameTooLarge, Socket
from app.exchanges.base import Exchange, Signer
from app.model import Event, Gap, Quarantined
from app.pipeline.outbox import Epoch, Outbox
from app.pipeline.plan import Stream
from app.pipeline.sender import Sender
from app.sequence import Continuity

#: The reader looks at its timers and at the stop flag at least so often.
TICK_S = 0.25
#: After saying goodbye the venue may still have data under way; it is read for at most so long.
GOODBYE_S = 1.0
#: From the request to stop until what is left goes to the spool and the thread ends.
DRAIN_S = 10.0


@dataclass
class Progress:
    """What a stream says of itself, in memory; health and dashboard only, never the truth about data."""

    connection: str = "connecting"
    since_us: int = 0
    why: str = ""
    epoch: str = ""
    opened_count: int = 0
    frames: int = 0
    events: int = 0
    last_data_us: int | None = None
    closes: dict[str, int] = field(default_factory=dict)


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
        signer: Signer | None = None,
    ) -> None:
        self.stream = stream
        self.progress = Progress(since_us=wall_us())
        self._exchange, self._settings = exchange, settings
        self._outbox, self._sender = outbox, sender
        self._stop = stop
        self._now_s, self._now_us = monotonic_s, wall_us
        self._unlisted = unlisted
        self._signer = signer
        self._continuity = Continuity()
        self._session: Session | None = None
        self._drain_until_s: float | None = None
        self._rejected: set[tuple[str, str]] = set()

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
        return "sender_died" if self._sender.finished.is_set() else ""

    def _wait(self, seconds: float) -> None:
        until_s = self._now_s() + seconds
        while (left_s := until_s - self._now_s()) > 0 and not self._over():
            self._stop.wait(min(left_s, TICK_S))

    def _connect_once(self, failures: int) -> None:
        """One epoch, from handshake to its end on record; nothing where no connection came about."""
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
            self._say("failed", str(error))
            telemetry.connection_failed(self.stream.name, str(error), delay_s(failures + 1, *self._retry(), 0.5))
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
        )
        frames, opened_s = self.progress.frames, self._now_s()
        close = Close("error", "unexpected")
        try:
            close = self._read(socket, session, unlisted)
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

    def _read(self, socket: Socket, session: Session, unlisted: dict[str, str]) -> Close:
        """Read until something ends the connection; what has been read by then is in the outbox."""
        try:
            self._perform(socket, session.opened(self._now_s(), self._now_us()))
            for symbol, words in unlisted.items():
                session.reject(symbol, words, self._now_us())
            next_tick_s = self._now_s() + TICK_S
            while True:
                payload = socket.receive(TICK_S)
                now_s = self._now_s()
                close = None
                if payload is not None:
                    self.progress.frames += 1
                    close = self._perform(socket, session.received(payload, self._now_us(), now_s))
                if close is None and now_s >= next_tick_s:
                    next_tick_s = now_s + TICK_S
                    self._report_rejections(session)
                    if over := self._over():
                        close = Close(over)
                    else:
                        close = self._perform(socket, session.tick(now_s, self._now_us()))
                if close is not None:
                    self._goodbye(socket, session)
                    return close
        except FrameTooLarge as error:
            self._perform(socket, session.oversized(error.size_bytes, error.head, self._now_us()))
            socket.say_goodbye(1009)
            return Close("oversized_frame", str(error))
        except ConnectionEnded as error:
            return Close("stream_ended" if error.code is None else "close_frame", str(error))

    def _goodbye(self, socket: Socket, session: Session) -> None:
        """Say goodbye and keep what the venue had already sent: what arrives is received, and what is received is kept."""
        socket.say_goodbye(1000)
        until_s = self._now_s() + GOODBYE_S
        try:
            while (left_s := until_s - self._now_s()) > 0:
                payload = socket.receive(left_s)
                if payload is not None:
                    self._keep(session.received(payload, self._now_us(), self._now_s()))
        except (ConnectionEnded, FrameTooLarge):
            return

    def _perform(self, socket: Socket, outputs: list[Any]) -> Close | None:
        """Keep what is to be kept, then send what is to be sent; the wish to close, if there is one."""
        close = self._keep(outputs)
        for output in outputs:
            if type(output) is Send:
                socket.send(self._signed(output))
        return close

    def _signed(self, request: Send) -> str | None:
        """What to send. A token is made now: it lives two minutes, and a paced request may have waited for its turn."""
        if not request.sign or request.frame is None or self._signer is None:
            return request.frame
        return self._signer(request.frame, self._now_us() // 1_000_000, uuid.uuid4().hex)

    def _keep(self, outputs: list[Any]) -> Close | None:
        close = None
        progress = self.progress
        for unit in outputs:
            kind = type(unit)
            if kind is Event:
                progress.events += 1
                progress.last_data_us = unit.received_us
                if not self._outbox.add(unit):
                    telemetry.event_refused(self.stream.name, unit.symbol, unit.feed)
            elif kind is Gap:
                self._outbox.add(unit)
                telemetry.gap_detected(self.stream.name, unit.symbol, unit.feed, unit.from_id, unit.to_id, unit.size)
            elif kind is Quarantined:
                self._outbox.add(unit)
                telemetry.frame_rejected(self.stream.name, unit.reason, len(unit.frame))
            elif kind is Close:
                close = unit
        return close

    def _report_rejections(self, session: Session) -> None:
        for (symbol, feed), status in session.feeds.items():
            if status.state is FeedState.REJECTED and (symbol, feed) not in self._rejected:
                self._rejected.add((symbol, feed))
                telemetry.subscription_rejected(self.stream.name, symbol, feed, status.why)

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
                    "interval_s": status.interval_s and round(status.interval_s, 4),
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
