"""The state machine of one connection. Pure: frames and ticks in, actions out; no socket, no clock, no Redis.

    opened(now)                 -> Send ...
    received(payload, time)     -> Event | Gap | Quarantined | Send | Close ...
    tick(now)                   -> Send | Close | Rotate ...

The driver (app/pipeline/link.py) performs `Send` and `Close` and hands the records to the outbox. Times come in twice:
`now_s` is monotonic and decides, `now_us` is the wall clock and is only written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

from app.connection.actions import Close, Fetch, Output, Rotate, Send
from app.connection.feed import FeedState, FeedStatus
from app.connection.freshness import Rhythm
from app.connection.life import Life
from app.connection.requests import Requests
from app.connection.snapshots import Snapshots
from app.errors import FrameRejected
from app.exchanges.base import Ack, Counted, Decoded, Exchange, Notice, Rejected, Subscription
from app.model import ORDERBOOK, UNDECODED, EpochEnd, Event, Gap, Quarantined, Range
from app.sequence import Continuity, Verdict

#: A book with a hole asks for a new snapshot; if another hole shows after so long, the snapshot was lost too.
SNAPSHOT_WAIT_S = 10.0
#: A refused or halted feed is asked for again after so long, each time after twice as long, at last once an hour.
RETRY_FIRST_S = 300.0
RETRY_LAST_S = 3600.0
#: What a venue says is shown in statuses and logs; a refusal is a sentence, and a frame may have megabytes.
WORDS_CHARS = 500
#: More than half of at least so many frames undecodable within the window: the connection starts anew.
BREAKER_FRAMES = 100
BREAKER_WINDOW_S = 60.0
#: A wish for another connection that has not been fulfilled is said again after so long.
ROTATE_AGAIN_S = 30.0


class Session:
    """One connection from open to close."""

    def __init__(
        self,
        exchange: Exchange,
        subscription: Subscription,
        continuity: Continuity,
        *,
        epoch: str,
        dead_timeout_s: float,
        data_timeout_s: Mapping[str, float],
        rhythms: Mapping[tuple[str, str], Rhythm] | None = None,
        rotate_after_s: float | None = None,
    ) -> None:
        self.epoch = epoch
        self.feeds: dict[tuple[str, str], FeedStatus] = {}
        #: The venue's last refusal, in its words.
        self.last_error = ""
        self._exchange = exchange
        self._subscription = subscription
        self.continuity = continuity
        self._dead_timeout_s = dead_timeout_s
        self._data_timeout_s = data_timeout_s
        #: Each feed's rhythm, as the connection before has learnt it.
        self.rhythms = {key: copy(rhythm) for key, rhythm in (rhythms or {}).items()}
        #: Why another connection is to take this one's place, and when that is said next.
        self._rotate: Rotate | None = None
        self._rotate_after_s = rotate_after_s
        self._rotate_s = 0.0
        self._decode = exchange.decoder(subscription).decode
        self.numbers: dict[tuple[str, str], int] = {}  # the last one given to each (symbol, feed)
        self._requests = Requests(exchange.limits)
        self._awaiting_snapshot: dict[str, float] = {}
        self._snapshots = Snapshots(exchange, subscription)
        #: Number and receive time of the last frame, where the venue counts them all.
        self._counted: tuple[int, int] | None = None
        #: By book, the number of the event that comes after its last hole.
        self._holed: dict[str, int] = {}
        self.life = Life(0.0)
        self._last_beat_s = self._last_look_s = 0.0
        self._window_s = 0.0
        self._frames = self._undecodable = 0

    def opened(self, now_s: float, now_us: int) -> list[Output]:
        """The connection is up: what to send first."""
        for symbol in self._subscription.symbols:
            for feed in self._subscription.feeds:
                rhythm = self.rhythms.setdefault((symbol, feed), Rhythm(self._data_timeout_s[symbol]))
                self.feeds[symbol, feed] = FeedStatus(now_s, now_us, rhythm)
        self.life = Life(now_s)
        self._last_beat_s = self._last_look_s = self._window_s = now_s
        self._requests.add(self._exchange.subscribe(self._subscription, self.epoch))
        return [*self._requests.due(now_s)]

    def received(self, payload: bytes, received_us: int, now_s: float) -> list[Output]:
        """What one data frame means. Every frame that is not a control message becomes numbered units."""
        self.life.frame(now_s)
        self._frames += 1
        try:
            text = payload.decode()
            messages = self._decode(text)
        except UnicodeDecodeError as error:
            return self._quarantine(payload, received_us, f"not_utf8: {error.reason} at byte {error.start}", now_s)
        except FrameRejected as error:
            found: list[Output] = []
            if error.number is not None:
                self._count(error.number, received_us, now_s, found)
            return [*found, *self._quarantine(payload, received_us, str(error), now_s)]
        except Exception as error:  # noqa: BLE001 - a decoder with a bug must not cost the frame
            reason = f"decoder_failed: {type(error).__name__}: {error}"[:WORDS_CHARS]
            return self._quarantine(payload, received_us, reason, now_s)
        for message in messages:
            if isinstance(message, Decoded) and (message.symbol, message.feed) not in self.feeds:
                reason = f"unexpected_feed: {message.symbol} {message.feed}"
                return self._quarantine(payload, received_us, reason, now_s)
        outputs: list[Output] = []
        for message in messages:
            if isinstance(message, Decoded):
                self._data(message, received_us, now_s, outputs)
            elif isinstance(message, Counted):
                self._count(message.number, received_us, now_s, outputs)
            else:
                self._control(message, received_us, now_s)
        return outputs

    def joined(self, before: Continuity) -> list[Output]:
        """The connection whose place this one takes is over: trades that neither has brought are a hole."""
        return [
            Gap(symbol, feed, 1, str(hole.from_id), str(hole.to_id), hole.size, hole.before_us, after_us, "missing_ids")
            for symbol, feed, hole, after_us in self.continuity.join(before)
        ]

    def tick(self, now_s: float, now_us: int) -> list[Output]:
        """What is due by now: paced requests, the heartbeat, silence. Call at least every quarter second."""
        outputs: list[Output] = [*self._requests.due(now_s), *self._snapshots.fetches(now_s)]
        beat = self._exchange.heartbeat
        if beat is not None and now_s - self._last_beat_s >= beat.every_s:
            self._last_beat_s = now_s
            self.life.pings += 1
            outputs.append(Send(beat.frame))
        if now_s - self._last_look_s >= 1.0:
            self._last_look_s = now_s
            self._look_for_silence(now_s, now_us, outputs)
            self._look_for_life(now_s, outputs)
            if self._rotate_after_s is not None and now_s - self.life.opened_s >= self._rotate_after_s:
                self._wish(Rotate("planned_rotation", f"open for {now_s - self.life.opened_s:.0f} s"))
        if self._rotate is not None and now_s >= self._rotate_s:
            self._rotate_s = now_s + ROTATE_AGAIN_S
            outputs.append(self._rotate)
        return outputs

    def ended_by_venue(self, reason: str, detail: str) -> Close:
        """The venue's end of the connection by name: one that refused us and never sent data ended it for that."""
        if self.last_error and self.life.data_s is None:
            return Close("subscribe_rejected", f"{self.last_error} ({detail})")
        return Close(reason, detail)

    def _wish(self, rotate: Rotate) -> None:
        """Want another connection; the first reason stands."""
        if self._rotate is None:
            self._rotate = rotate

    def end(self, ended_us: int, reason: str) -> EpochEnd:
        """The epoch's last word: the last number given to each (symbol, feed)."""
        last = tuple(Range(symbol, feed, 1, number) for (symbol, feed), number in self.numbers.items())
        return EpochEnd(ended_us, reason, last)

    def _number(self, symbol: str, feed: str) -> int:
        self.numbers[symbol, feed] = number = self.numbers.get((symbol, feed), 0) + 1
        return number

    def _data(self, event: Decoded, received_us: int, now_s: float, outputs: list[Output]) -> None:
        key = symbol, feed = event.symbol, event.feed
        self.numbers[key] = number = self.numbers.get(key, 0) + 1
        verdict, hole = self.continuity.check(event, received_us)
        if verdict is Verdict.RESET and feed == ORDERBOOK:
            self._awaiting_snapshot.pop(symbol, None)
        if hole is not None:
            cause = "sequence" if feed == ORDERBOOK else "missing_ids"
            ids = str(hole.from_id), str(hole.to_id)
            outputs.append(Gap(symbol, feed, number, *ids, hole.size, hole.before_us, received_us, cause))
            asked = symbol in self._snapshots  # to subscribe anew would bring no snapshot, and make another hole
            if feed == ORDERBOOK and not asked and now_s >= self._awaiting_snapshot.get(symbol, now_s):
                self._awaiting_snapshot[symbol] = now_s + SNAPSHOT_WAIT_S
                self._resubscribe(symbol, feed)
        identity = event.sequence_id or f"{self.epoch}-{number}"
        outputs.append(Event(symbol, feed, number, identity, received_us, event.exchange_us, event.data))
        if symbol in self._snapshots:
            outputs += [self._snapshot(*book) for book in self._snapshots.seen(event, verdict, now_s)]

        status = self.feeds[key]
        if status.rhythm.last_s != now_s:  # what came together is one beat
            status.rhythm.beat(now_s)
            status.last_data_s = self.life.data_s = now_s
        if status.state is not FeedState.LIVE:
            status.change(FeedState.LIVE, received_us)
            status.resubscribed = False
            status.retries = 0

    def _count(self, number: int, received_us: int, now_s: float, outputs: list[Output]) -> None:
        """A jump of the connection's own count: which feeds the missing frames were of cannot be told.

        Trades show a hole by their own ids. Every book is declared to have one and begins anew, again and again while
        frames are missing: the snapshot itself may be among them. A book that has no event since its last hole has that
        one on record; a book that was not asked for yet has none.
        """
        before, self._counted = self._counted, (number, received_us)
        if before is None or number == before[0] + 1:
            return
        first, last = (before[0] + 1, number - 1) if number > before[0] else (before[0], number)
        still_to_ask = self._requests.waiting_feeds()
        for (symbol, feed), status in self.feeds.items():
            next_number = self.numbers.get((symbol, feed), 0) + 1
            unasked = next_number == 1 and (symbol, feed) in still_to_ask
            if feed != ORDERBOOK or unasked or status.given_up:
                continue
            if self._holed.get(symbol) != next_number:
                self._holed[symbol] = next_number
                span = str(first), str(last), None, before[1], received_us
                outputs.append(Gap(symbol, feed, next_number, *span, "connection_sequence"))
            self._awaiting_snapshot[symbol] = now_s + SNAPSHOT_WAIT_S
            self._resubscribe(symbol, feed)

    def asked_book(self, answer: Decoded | None, wait_s: float, received_us: int, now_s: float) -> list[Output]:
        """The answer to `Fetch("book")`, as an event where it joins the changes; None: none came, wait before the next."""
        return [self._snapshot(*book) for book in self._snapshots.answered(answer, wait_s, received_us, now_s)]

    def _snapshot(self, book: Decoded, received_us: int) -> Event:
        number = self._number(book.symbol, book.feed)
        return Event(book.symbol, book.feed, number, book.sequence_id, received_us, book.exchange_us, book.data)

    def _control(self, message: Ack | Rejected | Notice, now_us: int, now_s: float) -> None:
        match message:
            case Rejected(request_id, words, feeds):
                words = words[:WORDS_CHARS]
                request = self._requests.sent(request_id)
                named = feeds or (request.feeds if request else ())
                self.last_error = words
                for key in named:
                    if key in self.feeds and self.feeds[key].state not in (FeedState.LIVE, FeedState.QUIET):
                        self._give_up(self.feeds[key], FeedState.REJECTED, words, now_us)
            case Notice("shutdown", words):
                self._wish(Rotate("venue_notice", words[:WORDS_CHARS]))
            case Notice("pong"):
                self.life.pong(now_s)
            case _:
                pass  # an ack, too: a request may get one for each of its feeds, and only data proves that a feed works

    def _quarantine(self, payload: bytes, received_us: int, reason: str, now_s: float) -> list[Output]:
        outputs: list[Output] = [
            Quarantined(UNDECODED, UNDECODED, self._number(UNDECODED, UNDECODED), received_us, reason, payload)
        ]
        if now_s - self._window_s > BREAKER_WINDOW_S:
            self._window_s, self._frames, self._undecodable = now_s, 1, 0
        self._undecodable += 1
        if self._frames >= BREAKER_FRAMES and self._undecodable * 2 > self._frames:
            outputs.append(Close("circuit_breaker", f"{self._undecodable} of {self._frames} frames undecodable"))
        return outputs

    def oversized(self, size_bytes: int, head: bytes, received_us: int) -> list[Output]:
        """A frame over the cap: its head is kept, and the connection cannot go on."""
        reason = f"oversized: {size_bytes} bytes, the first {len(head)} are kept"
        kept = Quarantined(UNDECODED, UNDECODED, self._number(UNDECODED, UNDECODED), received_us, reason, head)
        return [kept, Close("oversized_frame", f"{size_bytes} bytes")]

    def reject(self, symbol: str, words: str, now_us: int) -> None:
        """Mark a symbol that the venue does not list, where the venue itself would stay silent."""
        for feed in self._subscription.feeds:
            self._give_up(self.feeds[symbol, feed], FeedState.REJECTED, words, now_us)

    def unlisted(self, symbols: Mapping[str, str], now_us: int) -> None:
        """The answer to `Fetch("symbols")`: symbols that the venue does not list, with words. Stale ones are halted."""
        for (symbol, _), status in self.feeds.items():
            if symbol in symbols and status.state is FeedState.STALE:
                self._give_up(status, FeedState.HALTED, symbols[symbol], now_us)

    def _give_up(self, status: FeedStatus, state: FeedState, words: str, now_us: int) -> None:
        """Ask again only after a while, then after twice as long."""
        if status.state is not state:
            status.change(state, now_us, words)
        status.retry_s = self._last_look_s + min(RETRY_FIRST_S * 2**status.retries, RETRY_LAST_S)
        status.retries += 1

    def _resubscribe(self, symbol: str, feed: str) -> None:
        self._requests.ask_anew(self._exchange.resubscribe(self._subscription, symbol, feed, self.epoch))

    def _look_for_life(self, now_s: float, outputs: list[Output]) -> None:
        """A connection that says nothing at all is asked, the way its venue answers, and ended when no answer comes."""
        if self.life.gone(now_s):
            detail = f"no frame for {self.life.silent_s(now_s):.0f} s, nor an answer to a ping"
            outputs.append(Close("ping_failed", detail))
        elif self.life.asks(now_s):
            outputs.append(Send(self._exchange.heartbeat.frame if self._exchange.heartbeat else None))

    def _look_for_silence(self, now_s: float, now_us: int, outputs: list[Output]) -> None:
        """Staleness is judged feed by feed, by data alone: acks, heartbeats and pongs prove nothing about a feed."""
        silent_s = self.life.silent_s(now_s)
        if silent_s > self._dead_timeout_s:
            outputs.append(Close("dead_timeout", f"no frame at all for {silent_s:.0f} s"))
            return
        alive = waiting = False
        for (symbol, feed), status in self.feeds.items():
            silent_s, rhythm = now_s - status.last_data_s, status.rhythm
            if status.given_up:
                if now_s >= status.retry_s:
                    self._give_up(status, status.state, status.why, now_us)
                    self._resubscribe(symbol, feed)
            elif silent_s <= rhythm.stale_after_s():
                alive = True
                if status.state is FeedState.LIVE and silent_s > rhythm.quiet_after_s():
                    status.change(FeedState.QUIET, now_us, f"no data for {silent_s:.0f} s")
            else:
                if status.state is not FeedState.STALE:
                    status.change(FeedState.STALE, now_us, f"no data for {silent_s:.0f} s")
                if not status.resubscribed:
                    status.resubscribed = True
                    self._resubscribe(symbol, feed)
                    outputs.append(Fetch("symbols"))
                overdue = silent_s > 2 * rhythm.stale_after_s()
                waiting = waiting or overdue
                if overdue and rhythm.may_restart():
                    rhythm.restarted = True
                    self._wish(Rotate("data_timeout", f"{symbol} {feed}: no data for {silent_s:.0f} s"))
        if waiting and not alive:
            outputs.append(Close("data_timeout", "connected, but no feed of this connection has data"))
