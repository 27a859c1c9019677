"""One connection at work: reads its socket, asks its session, keeps what came and sends what is due.

`run` has it read by the reader of the process (app/pipeline/reader.py), on whose thread `read` and `tick` wait for nothing.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import cast

from app import telemetry, telemetry_counts
from app.clock import sleep
from app.connection.actions import Close, Fetch, Output, Rotate, Send
from app.connection.feed import FeedState
from app.connection.frames import FrameTooLarge
from app.connection.session import Session
from app.connection.socket import ConnectionEnded, SendFailed, Socket
from app.errors import BufferUnavailable, VenueUnavailable
from app.exchanges.base import Decoded, Signer
from app.model import Event, Gap, Quarantined
from app.pipeline.outbox import Lane, Unit
from app.pipeline.reader import LOOK_S, Reader
from app.sequence import Continuity, Verdict

#: Ends of connections that a stream tells of.
ENDS = 5
#: After our goodbye the venue may still have data under way: it is read until nothing came for so long...
GOODBYE_S = 1.0
#: ...and at most for so long (docs/decisions/0005).
GOODBYE_AT_MOST_S = 3.0


@dataclass
class Progress:
    """What a stream counts of all its connections, in memory; health and dashboard only, never the truth about data."""

    opened_count: int = 0
    frames: int = 0
    events: int = 0
    last_data_us: int | None = None
    closes: dict[str, int] = field(default_factory=dict)
    #: The last ends of connections: when, why, in whose words.
    ends: deque[tuple[int, str, str]] = field(default_factory=lambda: deque(maxlen=ENDS))


class Link:
    """An open socket and its session.

    `over` says why to end, None while there is no reason to; `draining` is called when it begins to; `wish` is told when
    another connection is to take this one's place; `joins` brings the trades of the connection whose place this one took.
    """

    def __init__(
        self,
        stream: str,
        socket: Socket,
        session: Session,
        lane: Lane,
        progress: Progress,
        *,
        over: Callable[[], Close | None],
        draining: Callable[[], None],
        wish: Callable[[Rotate], None],
        joins: SimpleQueue[Continuity],
        reader: Reader,
        unlisted: Callable[[], dict[str, str]],
        book: Callable[[str], Decoded],
        signer: Signer | None,
        monotonic_s: Callable[[], float],
        wall_us: Callable[[], int],
    ) -> None:
        self._stream = stream
        self._socket, self._session, self._lane, self._progress = socket, session, lane, progress
        self._over, self._draining, self._wish, self._joins, self._reader = over, draining, wish, joins, reader
        self._unlisted, self._book, self._signer = unlisted, book, signer
        #: Data frames of this connection.
        self.frames = 0
        #: Data were still coming when we let go: nobody knows what was under way.
        self.cut_short = False
        self._now_s, self._now_us = monotonic_s, wall_us
        #: Answers to `Fetch("symbols")`, asked for on a thread of their own.
        self._listings: SimpleQueue[dict[str, str]] = SimpleQueue()
        self._asking = False
        #: Answers to `Fetch("book")`: the book (None: it did not come), how long nobody is to ask, when it came.
        self._books: SimpleQueue[tuple[Decoded | None, float, int]] = SimpleQueue()
        self._seen_controls = 0
        self._told: set[tuple[str, str]] = set()
        self._exchange = telemetry.exchange_of(stream)
        #: What has been counted of the session's numbers, its pings and its pongs.
        self._counted: dict[tuple[str, str], int] = {}
        self._pings = self._pongs = 0

    def run(self, unlisted: dict[str, str]) -> Close:
        """Read until something ends the connection; what has been read by then is in the outbox.

        `unlisted`: symbols that the venue does not list, with words; they are rejected from the start.
        """
        try:
            self._join()
            self._perform(self._session.opened(self._now_s(), self._now_us()))
            for symbol, words in unlisted.items():
                self._session.reject(symbol, words, self._now_us())
            close = self._reader.read(self)
            self._goodbye()
            return close
        except FrameTooLarge as error:
            self._keep(self._session.oversized(error.size_bytes, error.head, self._now_us()))
            self._socket.say_goodbye(1009)
            return Close("oversized_frame", str(error))
        except ConnectionEnded as error:
            if isinstance(error, SendFailed):
                self._keep_rest()
            return self._session.ended_by_venue("stream_ended" if error.code is None else "close_frame", str(error))
        finally:
            self._join()
            self._count()

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    @property
    def more(self) -> bool:
        """Whether something was read that `read` has not looked at: the socket may say nothing of it."""
        return not self._socket.dry

    def behind_s(self) -> float:
        """For how long at most nothing is to be read."""
        return self._lane.behind_s()

    def read(self) -> Close | None:
        """Keep what is there, without waiting for more."""
        payloads = self._socket.receive(0)
        if not payloads:
            return None
        self.frames += len(payloads)
        self._progress.frames += len(payloads)
        return self._perform(self._received(payloads, self._now_s()))

    def tick(self) -> Close | None:
        """Do what is due."""
        now_s = self._now_s()
        for (symbol, feed), status in self._session.feeds.items():
            if status.state is FeedState.REJECTED and (symbol, feed) not in self._told:
                self._told.add((symbol, feed))
                telemetry.subscription_rejected(self._stream, symbol, feed, status.why)
        while not self._listings.empty():
            self._asking = False
            self._session.unlisted(self._listings.get(), self._now_us())
        while not self._books.empty():
            self._keep(self._session.asked_book(*self._books.get(), now_s))
        if self._socket.control_frames != self._seen_controls:
            self._seen_controls = self._socket.control_frames
            self._session.life.pong(now_s)
        self._join()
        self._count()
        if (over := self._over()) is not None:
            return over
        return self._perform(self._session.tick(now_s, self._now_us()))

    def _count(self) -> None:
        """What the session has seen since the last time: numbers are given one by one, so their growth is what came."""
        session, exchange = self._session, self._exchange
        for (symbol, feed), number in session.numbers.items():
            if new := number - self._counted.get((symbol, feed), 0):
                self._counted[symbol, feed] = number
                telemetry_counts.received((exchange, symbol, feed), new)
        for (symbol, feed, verdict), events in session.continuity.irregular.items():
            again = verdict is Verdict.DUPLICATE
            (telemetry_counts.came_again if again else telemetry_counts.came_late)((exchange, symbol, feed), events)
        session.continuity.irregular.clear()
        life = session.life
        telemetry_counts.pinged(exchange, life.pings - self._pings)
        telemetry_counts.ponged(exchange, life.pongs - self._pongs)
        self._pings, self._pongs = life.pings, life.pongs

    def _join(self) -> None:
        while not self._joins.empty():
            self._keep(self._session.joined(self._joins.get()))

    def _received(self, payloads: list[bytes], now_s: float) -> list[Output]:
        """What frames mean that were read at once, and so were received at the same time."""
        received, now_us = self._session.received, self._now_us()
        return [output for payload in payloads for output in received(payload, now_us, now_s)]

    def _goodbye(self) -> None:
        """Say goodbye and keep what the venue had already sent: what arrives is received, and what is received is kept."""
        self._draining()
        self._socket.say_goodbye(1000)
        until_s = self._now_s() + GOODBYE_AT_MOST_S
        quiet_s = self._now_s() + GOODBYE_S
        try:
            while (left_s := min(until_s, quiet_s) - self._now_s()) > 0:
                if payloads := self._socket.receive(left_s):
                    self._keep(self._received(payloads, self._now_s()))
                    self._give_way(until_s)
                    quiet_s = self._now_s() + GOODBYE_S
            self.cut_short = quiet_s > until_s
        except FrameTooLarge as error:
            self._keep(self._session.oversized(error.size_bytes, error.head, self._now_us()))
            self.cut_short = True
        except ConnectionEnded:
            return

    def _keep_rest(self) -> None:
        """What had come before it was seen that the venue takes nothing any more."""
        with suppress(ConnectionEnded, FrameTooLarge):
            while payloads := self._socket.receive(0):
                self._keep(self._received(payloads, self._now_s()))

    def _give_way(self, until_s: float) -> None:
        """Let the sender catch up, as the reader does."""
        until_s = min(until_s, self._now_s() + self._lane.behind_s())
        while self._lane.behind_s() and self._now_s() < until_s:
            sleep(LOOK_S)

    def _perform(self, outputs: list[Output]) -> Close | None:
        """Keep what is to be kept, then send what is to be sent; the wish to close, if there is one."""
        close = self._keep(outputs)
        for output in outputs:
            if type(output) is Send:
                self._socket.send(self._signed(output))
            elif type(output) is Fetch:
                if output.what == "book":
                    self._fetch_book(output.symbol)
                else:
                    self._fetch_symbols()
        return close

    def _fetch_symbols(self) -> None:
        """Ask which symbols the venue lists, without keeping the reader from its socket; one question at a time."""
        if self._asking:
            return
        self._asking = True

        def ask() -> None:
            found: dict[str, str] = {}
            try:
                found = self._unlisted()
            finally:
                self._listings.put(found)

        threading.Thread(target=ask, name=f"symbols {self._stream}", daemon=True).start()

    def _fetch_book(self, symbol: str) -> None:
        """Ask for a book; the session has one question at a time on its way."""

        def ask() -> None:
            book, wait_s = None, 0.0
            try:
                book = self._book(symbol)
            except VenueUnavailable as error:
                wait_s = error.wait_s
                telemetry.book_unasked(self._stream, symbol, str(error))
            except BufferUnavailable as error:
                telemetry.book_unasked(self._stream, symbol, f"the shared budget cannot be asked: {error}")
            finally:
                self._books.put((book, wait_s, self._now_us()))

        threading.Thread(target=ask, name=f"book {self._stream}", daemon=True).start()

    def _signed(self, request: Send) -> str | None:
        """What to send. A token is made now: it lives two minutes, and a paced request may have waited for its turn."""
        if not request.sign or request.frame is None or self._signer is None:
            return request.frame
        return self._signer(request.frame, self._now_us() // 1_000_000, uuid.uuid4().hex)

    def _keep(self, outputs: list[Output]) -> Close | None:
        close = None
        others = [output for output in outputs if type(output) is not Event]
        units = [output for output in outputs if isinstance(output, Event | Gap | Quarantined)] if others else outputs
        for refused in self._lane.add(cast(list[Unit], units)):
            telemetry.event_refused(self._stream, refused.symbol, refused.feed)
        if events := len(outputs) - len(others):
            self._progress.events += events
            self._progress.last_data_us = self._now_us()
        for unit in others:
            if type(unit) is Gap:
                telemetry.gap_detected(self._stream, unit.symbol, unit.feed, unit.from_id, unit.to_id, unit.size)
            elif type(unit) is Quarantined:
                telemetry.frame_rejected(self._stream, unit.reason, len(unit.frame))
            elif type(unit) is Close:
                close = unit
            elif type(unit) is Rotate:
                self._wish(unit)
        return close
