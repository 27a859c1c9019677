"""One connection of a stream, from the venue's leave to connect until its end is on record; on a thread of its own.

While it is open its link reads (app/pipeline/link.py). A connection may be told to end, and may take the place of another
one that is still open: both add to the outbox then, each to its own lane, and identities remove what came twice.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, NamedTuple

from app import telemetry
from app.config import Settings
from app.connection.actions import Close, Rotate
from app.connection.backoff import DEFAULT_RETRY_AFTER_S, delay_s
from app.connection.feed import FeedState
from app.connection.session import Session
from app.connection.socket import ConnectionFailed, Socket
from app.errors import VenueUnavailable
from app.exchanges.base import Decoded, Exchange, Signer
from app.model import UNCLEAN_END
from app.pipeline.link import Link, Progress
from app.pipeline.outbox import Epoch, Outbox
from app.pipeline.plan import Stream
from app.pipeline.reader import Reader
from app.sequence import Continuity

#: While the venue's budget is used up, it is asked again at least so often.
ADMIT_AGAIN_S = 5.0
#: A connection that is to take another's place does so after this, if not every feed has data by then.
REPLACE_AFTER_S = 30.0
#: Of the lifetime that a venue allows a connection it is used for this part at most, and not all streams at once.
LIFETIME_USED, LIFETIME_SPREAD = 0.98, 0.03


class Venue(NamedTuple):
    """What all workers have to agree on about one venue."""

    #: Seconds to wait before the next connection attempt; 0.0 when it may go now, and is counted.
    admit: Callable[[], float]
    #: Nobody is to try for so many seconds.
    stay_away: Callable[[float], None]
    #: The book of a symbol by now, asked for over REST. Raises: VenueUnavailable, BufferUnavailable.
    book: Callable[[Stream, str], Decoded]


def _unasked(stream: Stream, symbol: str) -> Decoded:
    raise VenueUnavailable(stream.exchange, "nobody is there to ask")


UNMETERED = Venue(lambda: 0.0, lambda seconds: None, _unasked)


class Ground(NamedTuple):
    """What the connections of one stream stand on."""

    exchange: Exchange
    settings: Settings
    outbox: Outbox
    progress: Progress
    venue: Venue
    signer: Signer | None
    unlisted: Callable[[Stream], dict[str, str] | None]
    #: Why everything is to end, "" while there is no reason to.
    over: Callable[[], str]
    reader: Reader
    monotonic_s: Callable[[], float]
    wall_us: Callable[[], int]


class Connection:
    """`connecting` (or `waiting` for the venue's budget), `open`, `draining`, then `closed`, or `failed`, `refused`,
    `rate_limited` where none came about."""

    def __init__(self, ground: Ground, stream: Stream, before: Connection | None, failures: int) -> None:
        self.stream = stream
        self.state, self.since_us, self.why = "connecting", ground.wall_us(), ""
        self.epoch = ""
        self.session: Session | None = None
        self.continuity = Continuity()
        #: What the session wants in its place; whoever answers the wish takes it away.
        self.wish: Rotate | None = None
        #: Whether it came to be open.
        self.opened = False
        self.finished = threading.Event()
        self._ground, self._before, self._failures = ground, before, failures
        self._opened_s = 0.0
        self._told: Close | None = None
        #: Continuity of the connection whose place this one took, once that one is over.
        self.joins: SimpleQueue[Continuity] = SimpleQueue()
        if before is not None and before.finished.is_set():
            self.joins.put(before.continuity)
        # In the context of the task: its lines in the log name it.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=f"connection {stream.name}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def end(self, reason: str, detail: str = "") -> None:
        """Say goodbye, read what is under way, put the end on record."""
        self._told = self._told or Close(reason, detail)

    def join(self, wait_s: float) -> None:
        """Wait until its end is on record; nobody waits for a handshake, which has nothing to lose."""
        until_s = self._ground.monotonic_s() + wait_s
        while (left_s := until_s - self._ground.monotonic_s()) > 0 and not self.finished.wait(min(left_s, 0.1)):
            if not self.opened:
                return

    @property
    def brought_data(self) -> bool:
        """Whether any feed has had data on it."""
        return self.session is not None and self.session.life.data_s is not None

    def may_replace(self, old: Connection) -> bool:
        """Whether every feed that lives on the old connection has begun here, or has had time enough to."""
        session, before = self.session, old.session
        if session is None or not session.feeds or before is None or self.state != "open":
            return False
        if self._ground.monotonic_s() - self._opened_s > REPLACE_AFTER_S:
            return self.brought_data
        return all(
            session.feeds[key].state is FeedState.LIVE
            for key, status in before.feeds.items()
            if status.state is FeedState.LIVE and key in session.feeds
        )

    def _over(self) -> Close | None:
        if reason := self._ground.over():
            return Close(reason)
        return self._told

    def _run(self) -> None:
        try:
            if self._admitted():
                self._connect()
            elif self._told is not None or self._ground.over():
                self._say("closed", "before it was opened")
        except Exception as error:  # noqa: BLE001 - a thread that dies must not take the stream with it unseen
            self._say("failed", f"{type(error).__name__}: {error}")
            telemetry.connection_failed(self.stream.name, self.why, 0.0)
        finally:
            self.finished.set()

    def _connect(self) -> None:
        """One epoch, from handshake to its end on record; nothing where no connection came about."""
        ground, name = self._ground, self.stream.name
        self._say("connecting")
        unlisted = ground.unlisted(self.stream)
        if unlisted is None:
            self._say("rate_limited", "the venue answered a REST request with 429 or 418: all workers stay away")
            return
        websocket = ground.settings.websocket
        try:
            socket = Socket(
                ground.exchange.endpoint(self.stream.ws_url, self.stream.subscription),
                connect_timeout_s=websocket.connect_timeout_secs,
                max_frame_bytes=websocket.max_frame_bytes,
                proxy=self.stream.proxy,
                private_hosts=self.stream.private_hosts,
            )
        except ConnectionFailed as error:
            self._refused(error)
            return
        if self._over() is not None:
            socket.close()
            return
        self.epoch = uuid.uuid4().hex
        self.opened, self._opened_s = True, ground.monotonic_s()
        before, self._before = self._before, None
        after = before.epoch if before is not None else ""
        overlaps = (after,) if before is not None and after and not before.finished.is_set() else ()
        lane = ground.outbox.begin(Epoch(self.epoch, ground.wall_us(), overlaps, after))
        ground.progress.opened_count += 1
        symbols = self.stream.subscription.symbols
        telemetry.connection_opened(name, self.epoch, overlaps, symbols, again=bool(after))
        session = Session(
            ground.exchange,
            self.stream.subscription,
            self.continuity,
            epoch=self.epoch,
            dead_timeout_s=websocket.message_timeout_secs,
            data_timeout_s=self.stream.data_timeout_s,
            rhythms=before.session.rhythms if before is not None and before.session is not None else None,
            rotate_after_s=self._lifetime_s(),
        )
        self.session = session
        self._say("open")
        close = Close("error", "unexpected")
        link = Link(
            name, socket, session, lane, ground.progress, over=self._over, draining=lambda: self._say("draining"),
            wish=self._wish, joins=self.joins, reader=ground.reader, unlisted=lambda: ground.unlisted(self.stream) or {},
            book=lambda symbol: ground.venue.book(self.stream, symbol), signer=ground.signer, monotonic_s=ground.monotonic_s,
            wall_us=ground.wall_us,
        )  # fmt: skip
        try:
            close = link.run(unlisted)
        finally:
            socket.close()
            lane.end(
                session.end(
                    ground.wall_us(), UNCLEAN_END if link.cut_short or close.reason == "error" else close.reason
                )
            )
            self._say("closed", f"{close.reason}: {close.detail}")
            closes = ground.progress.closes
            closes[close.reason] = closes.get(close.reason, 0) + 1
            ground.progress.ends.append((ground.wall_us(), close.reason, close.detail[:300]))
            silences = session.life.silences(ground.monotonic_s())
            telemetry.connection_closed(name, self.epoch, close.reason, close.detail, link.frames, silences, symbols)

    def _wish(self, rotate: Rotate) -> None:
        self.wish = rotate

    def _lifetime_s(self) -> float | None:
        """After how many seconds another connection is to take this one's place; None: never."""
        allowed_s, chosen_s = self._ground.exchange.limits.lifetime_s, self._ground.settings.websocket.rotate_secs
        spread = LIFETIME_USED - LIFETIME_SPREAD * random.random()
        limits = [allowed_s * spread] if allowed_s is not None else []
        return min([*limits, chosen_s] if chosen_s else limits, default=None)

    def _admitted(self) -> bool:
        """Wait for the venue's budget of connection attempts, which all workers share; False when it is time to end."""
        while self._over() is None:
            wait_s = self._ground.venue.admit()
            if wait_s <= 0:
                return True
            self._say("waiting", f"for the venue's budget of connection attempts, {wait_s:.0f} s")
            until_s = self._ground.monotonic_s() + min(wait_s, ADMIT_AGAIN_S)
            while self._ground.monotonic_s() < until_s and self._over() is None:
                self.finished.wait(0.1)
        return False

    def _refused(self, error: ConnectionFailed) -> None:
        """Give a refusal its name and its remedy; a venue that tells us to stay away is obeyed by all workers."""
        detail = str(error)
        state = "failed"
        if error.status in (418, 429):
            wait_s = error.retry_after_s or DEFAULT_RETRY_AFTER_S
            self._ground.venue.stay_away(wait_s)
            state, detail = "rate_limited", f"{detail}: all workers stay away for {wait_s:.0f} s"
        elif error.status in (403, 451):
            name = self.stream.exchange
            state = "refused"
            detail = f"{detail}: it does not serve this place; set [exchanges.{name}] ws_url, rest_url or proxy"
        self._say(state, detail)
        websocket = self._ground.settings.websocket
        pause_s = delay_s(self._failures + 1, websocket.initial_retry_delay_secs, websocket.max_retry_delay_secs, 0.5)
        telemetry.connection_failed(self.stream.name, detail, pause_s)

    def _say(self, state: str, why: str = "") -> None:
        self.state, self.since_us, self.why = state, self._ground.wall_us(), why

    def shown(self) -> dict[str, Any]:
        """Its state for people, with since when and why."""
        return {"connection": self.state, "since_us": self.since_us, "why": self.why, "epoch": self.epoch}
