"""One market as it happens: its book, its trades, how late they come. Alive only while somebody looks at it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.books.book import Book, Side
from app.books.change import Row
from app.books.rebuild import Rebuild
from app.books.trade import TRADES
from app.books.venues import VENUES
from app.buffer.tap import Tap
from app.clock import monotonic_s, sleep, wall_us
from app.codec import BatchCodec, ElementRejected, identity
from app.errors import BufferUnavailable, CollectorError
from app.model import ORDERBOOK, TRADE, Batch, Event, Market
from app.pipeline.last_book import last_book
from app.wiring import Wiring

#: Levels a side, and trades, of a document.
LEVELS, TRADES_SHOWN = 200, 60
#: Percentiles are over the events of this time, and of no more events than that.
LATENCY_US, LATENCY_EVENTS = 60 * 1_000_000, 5_000
#: A list with more than this is not looked through: the book is made of what comes.
MOST_WAITING_BYTES = 32 * 1024 * 1024
LOOK_S, RETRY_S = 0.5, 1.0
#: Why there is no book.
LOOKING = "looking for its last snapshot"
REMOVED = "no [[markets]] of the settings names it any more"
WAITS = "the book waits for a snapshot; trades are shown as they come"
UNREADABLE = "how books of this venue are read is not known here; trades are shown as they come"
#: It ends when nobody has asked for so long.
IDLE_S = 10.0


class LiveMarket:
    """Listens on a thread of its own while `document` is asked for; what that returns is a moment of it."""

    def __init__(self, wiring: Wiring, market: Market) -> None:
        self._wiring, self.market = wiring, market
        self._codec = BatchCodec()
        self._asked_s = monotonic_s()
        #: Set once the book is made of what was there already.
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"live {market}", daemon=True)
        self._lock = threading.Lock()
        self._rebuild = self._empty()
        self._words, self._away = LOOKING if self.streams else REMOVED, ""
        self._at_us: int | None = None
        self._trades: deque[dict[str, Any]] = deque(maxlen=TRADES_SHOWN)
        self._number = 0
        self._latency: dict[str, deque[tuple[int, float]]] = {}
        self._thread.start()

    @property
    def streams(self) -> list[str]:
        """Those of the plan that carry the market."""
        exchange, symbol = self.market.exchange, self.market.symbol
        return [
            name
            for name, stream in self._wiring.streams.items()
            if stream.exchange == exchange and symbol in stream.subscription.symbols
        ]

    def _empty(self) -> Rebuild | None:
        """A book of which nothing is known; None where nobody wrote how this venue's books are read."""
        return Rebuild(self.market.exchange, self.market.symbol) if self.market.exchange in VENUES else None

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def _wanted(self) -> bool:
        return monotonic_s() - self._asked_s < IDLE_S

    def document(self) -> dict[str, Any]:
        """`book`, `trades` and `latency` of docs/dashboard.md. Raises: BufferUnavailable while Redis does not answer."""
        self._asked_s = monotonic_s()
        with self._lock:
            if self._away:
                raise BufferUnavailable(self._away)
            now_us = wall_us()
            return {
                "book": self._shown(self._rebuild.book if self._rebuild is not None else None, now_us),
                "trades": list(self._trades),
                "latency": {feed: _percentiles(seen, now_us) for feed, seen in sorted(self._latency.items())},
            }

    def _shown(self, book: Book | None, now_us: int) -> dict[str, Any]:
        told: dict[str, Any] = {
            "state": "waiting" if book is None else "live",
            "words": self._words if book is None else "",
            "at_us": self._at_us,
            "age_s": None if self._at_us is None else max(0.0, (now_us - self._at_us) / 1e6),
            "bids": [], "asks": [], "levels": [0, 0], "mid": None, "spread": None, "spread_bps": None,
        }  # fmt: skip
        if book is None:
            return told
        bid, ask = book.bids.best(), book.asks.best()
        told |= {"bids": _levels(book.bids), "asks": _levels(book.asks)}
        told["levels"] = [len(book.bids.prices), len(book.asks.prices)]
        if bid is not None and ask is not None:
            mid, spread = (bid + ask) / 2, ask - bid
            told |= {"mid": f"{mid:f}", "spread": f"{spread:f}", "spread_bps": round(float(spread / mid * 10_000), 4)}
        return told

    def _run(self) -> None:
        while self._wanted and self.streams:
            try:
                self._follow()
            except BufferUnavailable as error:
                with self._lock:
                    self._away = str(error)
                self.begun.set()
                sleep(RETRY_S)

    def _follow(self) -> None:
        """From what is stored and what waits to what is pushed from now on; while it is wanted and the plan is the same."""
        streams = self.streams
        with Tap(self._wiring.redis, self._wiring.settings.redis.prefix, streams) as tap:
            # In the order of the path, the newest first: what moves on meanwhile is seen twice, and never missed.
            waiting = self._waiting(streams)
            rebuilt, stored = self._stored() or (self._empty(), [])
            known = {row.exchange_sequence_id for row in stored}
            batches = {identity(element) for element in waiting}
            with self._lock:
                self._away = ""
                self._rebuild = rebuilt
                self._at_us = stored[-1].timestamp_collector if stored else None
                for element in waiting:
                    self._take(element, known)
                self._words = WAITS if self._rebuild is not None else UNREADABLE
            self.begun.set()
            while self._wanted and self.streams == streams:
                pushed = tap.next(LOOK_S)
                if pushed is not None and identity(pushed) not in batches:
                    with self._lock:
                        self._take(pushed, known)

    def _waiting(self, streams: list[str]) -> list[bytes]:
        """What is in the lists, the oldest first."""
        depths = {depth.stream: depth for depth in self._wiring.buffer.depths()}
        found = []
        for stream in streams:
            if stream in depths and depths[stream].bytes <= MOST_WAITING_BYTES:
                found += list(self._wiring.buffer.waiting(stream))[::-1]
        return found

    def _stored(self) -> tuple[Rebuild, list[Row]] | None:
        """The book that is stored and the rows it is made of, where the data directory is on this host."""
        wiring = self._wiring
        if self._rebuild is None or not wiring.settings.database.path.exists():
            return None
        try:
            return last_book(wiring.ledger, wiring.settings.storage.segments_path, lambda: wiring.store, self.market)
        except (SQLAlchemyError, OSError, CollectorError):  # the next snapshot will do
            return None

    def _take(self, element: bytes, known: set[str]) -> None:
        try:
            batch = self._codec.decode(element)
        except ElementRejected:
            return
        symbol = self.market.symbol
        holes = {gap.number for gap in batch.gaps if (gap.symbol, gap.feed) == (symbol, ORDERBOOK)}
        if any((loss.symbol, loss.feed) == (symbol, ORDERBOOK) for loss in batch.losses):
            self._break_off(batch.epoch)
        for event in batch.events:
            if event.symbol == symbol:
                self._late(event)
                if event.feed == TRADE:
                    self._trade(event)
                elif event.sequence_id not in known:
                    self._book(batch, event, holes)

    def _book(self, batch: Batch, event: Event, holes: set[int]) -> None:
        if event.number in holes:
            self._break_off(batch.epoch)
        self._apply(Row(event.sequence_id, event.received_us, event.exchange_us, event.data, batch.epoch))

    def _apply(self, row: Row) -> None:
        if self._rebuild is not None:
            self._rebuild.apply(row)
            self._rebuild.decided.clear()
        self._at_us = row.timestamp_collector

    def _break_off(self, epoch: str) -> None:
        if self._rebuild is not None:
            self._rebuild.break_off(epoch)

    def _trade(self, event: Event) -> None:
        try:
            trade = TRADES[self.market.exchange](event.data)
        except (KeyError, ValueError):
            return
        if any(shown["id"] == event.sequence_id for shown in self._trades):  # two connections overlap
            return
        self._number += 1
        self._trades.append(
            {
                "n": self._number, "price": f"{trade.price:f}", "size": f"{trade.size:f}", "taker": trade.taker,
                "id": event.sequence_id, "received_us": event.received_us, "exchange_us": event.exchange_us,
            }
        )  # fmt: skip

    def _late(self, event: Event) -> None:
        if event.exchange_us is not None:
            seen = self._latency.setdefault(event.feed, deque(maxlen=LATENCY_EVENTS))
            seen.append((event.received_us, (event.received_us - event.exchange_us) / 1000))


def _levels(side: Side) -> list[tuple[str, str]]:
    return [(f"{price:f}", f"{size:f}") for price, size in side.top(LEVELS)]


def _percentiles(seen: deque[tuple[int, float]], now_us: int) -> dict[str, Any]:
    """Milliseconds from the venue's time to ours, of the last minute; with the offset of both clocks in them."""
    late = sorted(ms for received_us, ms in seen if now_us - received_us <= LATENCY_US)
    if not late:
        return {"p50_ms": None, "p99_ms": None, "events": 0}
    at = [late[min(len(late) - 1, int(len(late) * part))] for part in (0.5, 0.99)]
    return {"p50_ms": round(at[0], 3), "p99_ms": round(at[1], 3), "events": len(late)}
