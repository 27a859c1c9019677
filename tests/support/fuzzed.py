"""A connection of a venue whose every promise is checked frame by frame, and the frames to feed it.

What the session says goes on as it would in a stream: through the outbox into batches, through the codec, into a segment.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import count
from pathlib import Path

import msgspec

from app.codec import BatchCodec
from app.connection.actions import Close, Fetch, Output, Rotate, Send
from app.connection.freshness import Rhythm
from app.connection.session import Session
from app.exchanges import EXCHANGES, SOURCES
from app.exchanges.base import Exchange, Subscription
from app.model import ORDERBOOK, TRADE, UNDECODED, Batch, Event, Gap, Quarantined
from app.pipeline.outbox import Allowance, Epoch, Outbox
from app.sequence import Continuity
from app.store.known import KnownRanges
from tests.support.segments import balance, covered, numbers, opened, query
from tests.unit.exchanges.golden import CAPTURED, channels, frames, golden

NOW_US = 1_790_000_000_000_000

VENUES: dict[str, Exchange] = {
    **EXCHANGES,
    **{f"{n}_{source}": found for (n, source), found in SOURCES.items() if found is not EXCHANGES[n]},
}
#: Symbols of the captured frames, beside those of our own.
SYMBOLS = {
    "binance": ("nknusdt", "lrcbtc", "blzeth", "runeeur", "btcusdt", "ethusdt"),
    "coinbase": ("SKL-USD", "DASH-BTC", "NMR-EUR", "BAND-GBP", "NU-GBP", "BTC-USD", "ETH-USD"),
    "coinbase_advanced": ("BTC-USD", "ETH-USD"),
    "upbit": ("KRW-LAMB",),
    "okx": ("BTC-USDT", "NEAR-USDT", "BTC-USDT-SWAP"),
    "bybit": ("BTCUSDT",),
}
#: Every reason for which a frame is quarantined, every reason for which a session ends its connection.
REASONS = {
    "not_utf8", "not_json", "too_deep", "unexpected_shape", "unexpected_symbol", "unexpected_channel", "unexpected_feed",
}  # fmt: skip
CLOSES = {"circuit_breaker", "venue_notice", "data_timeout", "dead_timeout", "ping_failed"}
#: Of a venue's words, a reason or a status keeps at most so many characters.
WORDS = 600
#: The year 9999 ends in the last zone of the world.
LATEST_US = 253_402_387_200_000_000


def channel_of(venue: str, number: int) -> str:
    """The book channel of connection `number`: each that we have frames of in turn."""
    known = [channel for channel in channels(named(venue)) if channel in VENUES[venue].orderbook_channels]
    return known[number % len(known)]


def named(venue: str) -> Exchange:
    """The exchange under the name of the folder that has its frames."""
    found = type(venue, (type(VENUES[venue]),), {"name": venue})()
    assert isinstance(found, Exchange)
    return found


@cache
def subscription(venue: str, number: int = 0) -> Subscription:
    ours = {e.symbol for channel in channels(named(venue)) for line in golden(venue, channel) for e in line}
    symbols = tuple(dict.fromkeys([*SYMBOLS.get(venue, ()), *sorted(ours)]))
    return Subscription(symbols, (ORDERBOOK, TRADE), channel_of(venue, number), VENUES[venue].trade_channels[0])


@cache
def recorded(venue: str) -> list[list[bytes]]:
    """Our frames and, where at hand, the captured ones, file by file in order; of long files only a part."""
    files = [frames(venue, channel) for channel in [*channels(named(venue)), "control"]]
    prefix = {"coinbase": "exchange_", "coinbase_advanced": "advanced_"}.get(venue, "")
    for path in sorted((CAPTURED / VENUES[venue].name).glob(f"{prefix}*.jsonl")):
        if not path.name.startswith(("rest", "coinm")):
            files.append(path.read_text(encoding="utf-8").splitlines()[:400])
    return [[line.encode() for line in lines if len(line) < 6000] for lines in files]


class Connection:
    """One session after the other, as a stream runs them, and what each promises about every frame."""

    def __init__(self, venue: str) -> None:
        self.venue = venue
        self.exchange = VENUES[venue]
        self.batches: list[Batch] = []
        self.undecoded: list[bytes] = []
        self._continuity, self._rhythms = Continuity(max_entries=8), dict[tuple[str, str], Rhythm]()
        self._codec = BatchCodec()
        self._outbox = Outbox(
            "fuzz-0",
            self.exchange.name,
            max_bytes=1 << 30,
            share_bytes=lambda: 1 << 28,
            allowance=Allowance(1 << 30),
            max_events=200,
        )  # fmt: skip
        self._made = count()
        self.now_s = 1000.0
        self.open()

    def open(self) -> None:
        number = next(self._made)
        self.epoch = f"{number:032x}"
        self.asked = subscription(self.venue, number % 8)
        self.numbers = Counter[tuple[str, str]]()
        before, self._continuity = self._continuity, Continuity(max_entries=8)
        self.session = Session(
            self.exchange, self.asked, self._continuity, epoch=self.epoch, dead_timeout_s=30,
            data_timeout_s=dict.fromkeys(self.asked.symbols, 10.0), rhythms=self._rhythms,
        )  # fmt: skip
        self._units: list[Event | Gap | Quarantined] = []
        self._batched = len(self.batches)
        self._lane = self._outbox.begin(Epoch(self.epoch, self.now_us))
        self._check(self.session.joined(before))
        self._check(self.session.opened(self.now_s, self.now_us))
        self._rhythms = self.session.rhythms

    def receive(self, payload: bytes) -> list[Output]:
        """What the session makes of a frame, after every check."""
        self.now_s += 0.01
        outputs = self.session.received(payload, self.now_us, self.now_s)
        undecoded = [output for output in outputs if isinstance(output, Quarantined)]
        events = [output for output in outputs if isinstance(output, Event)]
        assert not undecoded or (not events and [unit.frame for unit in undecoded] == [payload])
        self.undecoded += [unit.frame for unit in undecoded]
        text = payload.decode() if events else ""
        assert all(event.data in text and event.data.strip().startswith("{") for event in events)
        self._check(outputs)
        return outputs

    def tick(self, seconds: float = 0.25) -> list[Output]:
        self.now_s += seconds
        outputs = self.session.tick(self.now_s, self.now_us)
        self._check(outputs)
        return outputs

    def close(self) -> None:
        """The epoch's last word agrees with what came out, and everything that came out is in its batches."""
        end = self.session.end(self.now_us, "test")
        assert {(r.symbol, r.feed): (r.first, r.last) for r in end.last_numbers} == {
            key: (1, last) for key, last in self.numbers.items()
        }
        self._lane.end(end)
        while (batch := self._outbox.take()) is not None:
            self._keep(batch)
        made = self.batches[self._batched :]
        for kind, name in ((Event, "events"), (Gap, "gaps"), (Quarantined, "quarantined")):
            out = [unit for unit in self._units if isinstance(unit, kind)]
            assert [unit for batch in made for unit in getattr(batch, name)] == out
        assert made[-1].end == end and not any(batch.losses for batch in made)

    @property
    def now_us(self) -> int:
        return NOW_US + round(self.now_s * 1_000_000)

    def _keep(self, batch: Batch) -> None:
        assert self._codec.decode(self._codec.encode(batch)) == batch
        self.batches.append(batch)

    def _check(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Event(symbol, feed, number, identity, received_us, exchange_us, data):
                    assert symbol in self.asked.symbols and feed in self.asked.feeds
                    assert exchange_us is None or 0 < exchange_us < LATEST_US
                    assert identity and (identity + data).encode() and received_us == self.now_us
                    self.numbers[symbol, feed] += 1
                    assert number == self.numbers[symbol, feed]
                case Quarantined(symbol, feed, number, received_us, reason, _):
                    assert symbol == feed == UNDECODED and received_us == self.now_us
                    assert reason.partition(":")[0] in REASONS and len(reason) < WORDS
                    self.numbers[symbol, feed] += 1
                    assert number == self.numbers[symbol, feed]
                case Gap(symbol, feed, number, from_id, to_id, size, before_us, after_us, cause):
                    assert symbol in self.asked.symbols and feed in self.asked.feeds
                    assert number == self.numbers[symbol, feed] + 1
                    assert size is None or 0 < size == int(to_id) - int(from_id) + 1 < 2**63
                    assert before_us <= after_us == self.now_us
                    assert cause in {"sequence", "missing_ids", "connection_sequence"}
                case Send(frame):
                    assert frame in (None, "ping") or msgspec.json.decode(frame)
                case Fetch(what, symbol):
                    assert what == "symbols" or (what == "book" and symbol in self.asked.symbols)
                case Close(reason, detail) | Rotate(reason, detail):
                    assert reason in CLOSES and len(detail) < WORDS
                case _:
                    raise AssertionError(f"{output!r} is no output of a session")
            if isinstance(output, Event | Gap | Quarantined):
                self._units.append(output)
                assert self._lane.add([output]) == []
                if self._outbox.batch_waits and (batch := self._outbox.take()) is not None:
                    self._keep(batch)
        assert len(self.session.last_error) < WORDS
        assert all(len(status.why) < WORDS for status in self.session.feeds.values())


def stored_whole(connection: Connection, directory: Path) -> None:
    """The batches go into a segment without a refusal: every unit has its place there."""
    segment = opened(directory)
    known, batches = KnownRanges(), connection.batches
    refused = 0
    for start in range(0, len(batches), 20):
        claim = batches[start : start + 20]
        counts = segment.store(claim, known, None)
        refused += counts.quarantined - sum(len(batch.quarantined) for batch in claim)
        assert counts.replays == 0
    assert refused == 0
    balance(segment.path)
    assert covered(segment.path) == numbers(batches)
    held = query(segment.path, "SELECT frame FROM quarantine ORDER BY epoch, number")
    assert [bytes(frame) for (frame,) in held] == connection.undecoded
    gaps = {(b.epoch, g.symbol, g.feed, g.number, g.from_id, g.to_id, g.size) for b in batches for g in b.gaps}
    assert set(query(segment.path, "SELECT epoch, symbol, feed, number, from_id, to_id, size FROM gaps")) == gaps
    events = [event for batch in batches for event in batch.events]
    books = {(event.symbol, event.data) for event in events if event.feed == ORDERBOOK}
    assert set(query(segment.path, "SELECT symbol, data FROM orderbooks")) == books
    trades = {(event.symbol, event.sequence_id): event.data for event in reversed(events) if event.feed == TRADE}
    rows = query(segment.path, "SELECT symbol, exchange_sequence_id, data FROM trades")
    assert {(symbol, identity): data for symbol, identity, data in rows} == trades
