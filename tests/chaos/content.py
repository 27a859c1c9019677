"""Batches of known content, what must become of them by the rules alone, and what a data directory really holds.

`Content` says what streams pushed, in order, and works out in a few plain lines what has to be stored. `Held` reads the
segments with sqlite3 and the ledger, whatever state they are in. A test compares the two.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from app.buffer.events import EventBuffer
from app.codec import BatchCodec
from app.model import (
    ORDERBOOK,
    TRADE,
    UNDECODED,
    Batch,
    Check,
    EpochEnd,
    Event,
    Gap,
    Loss,
    Quarantined,
    Range,
    Repair,
    runs,
)  # fmt: skip
from app.objects import parquet
from app.pipeline.audit import audit
from app.quality.balance import Difference
from app.store.ledger import Ledger, SegmentEntry
from tests.support.rig import Rig

HOUR_US = 3_600_000_000
#: 2026-01-01 00:00:05 UTC.
T0_US = 1_767_225_605_000_000

#: table, exchange, symbol, exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch
Row = tuple[str, str, str, str, int, int | None, str, str]
#: epoch, symbol, feed, first, last
NumberRange = tuple[str, str, str, int, int]
#: epoch, symbol, feed
Numbered = tuple[str, str, str]
COLUMNS = "exchange, symbol, exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch"
TABLES = {ORDERBOOK: "orderbooks", TRADE: "trades"}
RECORDS = ("ranges", "gaps", "losses", "repairs", "checks", "quarantine", "epochs", "replays")
#: SQLite has no integer as large as this: the row is refused by its value.
TOO_LARGE = 2**63


@dataclass
class Fate:
    """What became of the numbers of one (epoch, symbol, feed)."""

    numbers: set[int] = field(default_factory=set)
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0


@dataclass
class Facts:
    """The whole of what a data directory holds; two are equal when nothing is lost and nothing stands twice."""

    rows: Counter[Row] = field(default_factory=Counter)
    fates: dict[Numbered, Fate] = field(default_factory=dict)
    #: (epoch, symbol, feed, number, from, to, size, cause)
    gaps: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    #: (epoch, symbol, feed, first, last, count, cause)
    losses: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    #: What was found out later: repairs by (epoch, symbol, feed, number, state, found, by epoch), checks by
    #: (exchange, symbol, feed, kind, start, end, verdict).
    findings: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    #: (epoch, symbol, feed, number, frame)
    quarantine: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    #: epoch -> (stream, exchange, ended, reason, last numbers)
    epochs: dict[str, tuple[Any, ...]] = field(default_factory=dict)


class Connection:
    """One connection of one stream, whose batches go into `content`."""

    def __init__(self, content: Content, stream: str, epoch: int, opened_us: int) -> None:
        self._content = content
        self.stream, self.exchange = stream, stream.split("-")[0]
        self.epoch, self.opened_us = f"{epoch:032x}", opened_us
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._batches = 0
        self._clock_us = opened_us

    def next(self, symbol: str, feed: str) -> int:
        self._numbers[symbol, feed] += 1
        self._clock_us += 1_000
        return self._numbers[symbol, feed]

    def event(self, symbol: str, feed: str, identity: str, data: str, exchange_us: int | None = None) -> Event:
        number = self.next(symbol, feed)
        return Event(symbol, feed, number, identity, self._clock_us, exchange_us, data)

    def trade(self, symbol: str, identity: int, exchange_us: int | None = None) -> Event:
        return self.event(symbol, TRADE, str(identity), f'{{"t":{identity},"p":"1.{identity}0"}}', exchange_us)

    def book(self, symbol: str, identity: str, body: str = "") -> Event:
        return self.event(symbol, ORDERBOOK, identity, f'{{"u":"{identity}","b":["{body}"]}}', self._clock_us - 7)

    def frame(self, raw: bytes) -> Quarantined:
        number = self.next(UNDECODED, UNDECODED)
        return Quarantined(UNDECODED, UNDECODED, number, self._clock_us, "not_json", raw)

    def gap(self, shown_by: Event, missing: str) -> Gap:
        return Gap(shown_by.symbol, shown_by.feed, shown_by.number, missing, missing, 1, self._clock_us - 9,
                   self._clock_us, "sequence")  # fmt: skip

    def loss(self, symbol: str, feed: str, count: int) -> Loss:
        """So many numbers that were given and then given up."""
        numbers = [self.next(symbol, feed) for _ in range(count)]
        return Loss(symbol, feed, numbers[0], numbers[-1], count, self._clock_us - 5, self._clock_us, "queue_full")

    def push(self, *units: Event | Quarantined | Gap | Loss, end: str = "", times: int = 1) -> None:
        """One batch of these, pushed so many times."""
        self._batches += 1
        events = tuple(unit for unit in units if isinstance(unit, Event))
        frames = tuple(unit for unit in units if isinstance(unit, Quarantined))
        last = tuple(Range(symbol, feed, 1, number) for (symbol, feed), number in sorted(self._numbers.items()))
        self._content.add(
            Batch(
                self.stream, self.exchange, self.epoch, self._batches, self.opened_us,
                tuple(runs([(e.symbol, e.feed, e.number) for e in events] + [(f.symbol, f.feed, f.number) for f in frames])),
                events, frames,
                tuple(unit for unit in units if isinstance(unit, Loss)),
                tuple(unit for unit in units if isinstance(unit, Gap)),
                EpochEnd(self._clock_us + 1, end, last) if end else None,
            ),
            times,
        )  # fmt: skip

    def find(self, *found: Repair | Check, times: int = 1) -> None:
        """One batch that brings no events, only what was found out; pushed so many times."""
        self._batches += 1
        repairs = tuple(unit for unit in found if isinstance(unit, Repair))
        checks = tuple(unit for unit in found if isinstance(unit, Check))
        self._content.add(
            Batch(
                self.stream, self.exchange, self.epoch, self._batches, self.opened_us,
                kind="finding", repairs=repairs, checks=checks,
            ),
            times,
        )  # fmt: skip


class Content:
    """What was pushed, and what is expected of it."""

    def __init__(self) -> None:
        self.expected = Facts()
        #: In the order they were pushed: stream, element.
        self.elements: list[tuple[str, bytes]] = []
        #: Units of batches that were pushed before.
        self.replays = 0
        self._codec = BatchCodec()
        self._held: dict[tuple[str, str, str, str], str] = {}

    def connection(self, stream: str, epoch: int, opened_us: int) -> Connection:
        return Connection(self, stream, epoch, opened_us)

    def add(self, batch: Batch, times: int = 1) -> None:
        self.elements += [(batch.stream, self._codec.encode(batch))] * times
        self.replays += (times - 1) * (len(batch.events) + len(batch.quarantined))
        expected = self.expected
        if batch.epoch not in expected.epochs:
            expected.epochs[batch.epoch] = (batch.stream, batch.exchange, None, None, None)
        for event in batch.events:
            self._event(batch, event)
        for unit in batch.quarantined:
            fate = self._fate(batch.epoch, unit)
            fate.quarantined += 1
            expected.quarantine[batch.epoch, unit.symbol, unit.feed, unit.number, unit.frame] += 1
        for gap in batch.gaps:
            expected.gaps[
                batch.epoch, gap.symbol, gap.feed, gap.number, gap.from_id, gap.to_id, gap.size, gap.cause
            ] += 1
        for loss in batch.losses:
            key = batch.epoch, loss.symbol, loss.feed, loss.first, loss.last, loss.count, loss.cause
            expected.losses[key] += 1
        for repair in batch.repairs:
            named = repair.epoch, repair.symbol, repair.feed, repair.number
            expected.findings[*named, repair.state, repair.found, batch.epoch] += 1
        for check in batch.checks:
            named = batch.exchange, check.symbol, check.feed, check.kind
            expected.findings[*named, check.start_us, check.end_us, check.verdict] += 1
        if batch.end is not None:
            last = [[r.symbol, r.feed, r.last] for r in batch.end.last_numbers]
            expected.epochs[batch.epoch] = (
                batch.stream, batch.exchange, batch.end.ended_us, batch.end.reason, last,
            )  # fmt: skip

    def garbage(self, stream: str, element: bytes, times: int = 1) -> None:
        """An element that is no batch: it goes into quarantine under a name made of its bytes."""
        self.elements += [(stream, element)] * times
        self.replays += times - 1
        epoch = _garbage_epoch(element)
        self.expected.fates[epoch, UNDECODED, UNDECODED] = Fate({1}, quarantined=1)
        self.expected.quarantine[epoch, UNDECODED, UNDECODED, 1, element] += 1
        self.expected.epochs[epoch] = (stream, stream.split("-")[0], None, None, None)

    def _fate(self, epoch: str, unit: Event | Quarantined) -> Fate:
        fate = self.expected.fates.setdefault((epoch, unit.symbol, unit.feed), Fate())
        assert unit.number not in fate.numbers
        fate.numbers.add(unit.number)
        return fate

    def _event(self, batch: Batch, event: Event) -> None:
        fate = self._fate(batch.epoch, event)
        if event.exchange_us == TOO_LARGE:
            fate.quarantined += 1
            frame = event.data.encode()
            self.expected.quarantine[batch.epoch, event.symbol, event.feed, event.number, frame] += 1
            return
        key = TABLES[event.feed], batch.exchange, event.symbol, event.sequence_id
        if key in self._held and event.feed == ORDERBOOK and self._held[key] != event.data:
            fate.conflicts += 1
            key = (*key[:3], f"{event.sequence_id}~{hashlib.sha256(event.data.encode()).hexdigest()[:8]}")
        if key in self._held:
            fate.duplicates += 1
            return
        self._held[key] = event.data
        fate.stored += 1
        self.expected.rows[*key, event.received_us, event.exchange_us, event.data, batch.epoch] += 1

    def push(self, buffer: EventBuffer, elements: Iterable[tuple[str, bytes]] | None = None) -> None:
        """Everything (or `elements`) into the lists."""
        for stream, element in self.elements if elements is None else elements:
            assert buffer.push(stream, element) is not None


def numbers(element: bytes) -> list[NumberRange]:
    """The numbers of an element of a list; one that is no batch is a unit of its own."""
    if element[:1] != b"C":
        return [(_garbage_epoch(element), UNDECODED, UNDECODED, 1, 1)]
    batch = BatchCodec().decode(element)
    return [(batch.epoch, r.symbol, r.feed, r.first, r.last) for r in batch.ranges]


def _garbage_epoch(element: bytes) -> str:
    return hashlib.sha256(element).hexdigest()[:32]


def first_hour(content: Content) -> None:
    """Two streams; duplicates, a conflict, a gap, a loss, refused rows, garbage, a batch pushed twice, an epoch's end,
    and what was found out about them."""
    a = content.connection("binance-0-orderbook.trade", 1, T0_US)
    a.push()
    a.push(a.trade("btcusdt", 1), a.book("btcusdt", "1-3"), a.trade("ethusdt", 1), a.trade("btcusdt", 2))
    a.push(a.trade("btcusdt", 3), a.book("btcusdt", "1-3"), a.frame(b"\xff{"), a.book("btcusdt", "4-6"))
    shows = a.trade("btcusdt", 6)
    a.push(shows, a.gap(shows, "4"), a.loss("btcusdt", TRADE, 3), a.trade("ethusdt", 2), times=2)
    a.push(a.trade("btcusdt", 10), a.book("btcusdt", "4-6", "other bytes"), a.trade("ethusdt", 3, TOO_LARGE))
    content.garbage("binance-0-orderbook.trade", b"no batch at all, though long enough to be looked at", times=2)
    a.push(a.trade("ethusdt", 4), a.book("ethusdt", "1-1"), end="close_frame")
    b = content.connection("binance-0-orderbook.trade", 2, T0_US + 1_000_000)
    b.push(b.trade("btcusdt", 10), b.trade("btcusdt", 11), b.book("btcusdt", "7-9"))
    b.push(b.loss("btcusdt", ORDERBOOK, 2))
    c = content.connection("coinbase-0-orderbook.trade", 3, T0_US)
    c.push(c.trade("BTC-USD", 71), c.book("BTC-USD", f"{c.epoch}-1"))
    c.push(c.book("BTC-USD", f"{c.epoch}-2"), c.trade("BTC-USD", 72), c.trade("BTC-USD", 71))
    f = content.connection("coinbase-0-orderbook.trade", 6, T0_US + 2_000_000)
    gap_of = Repair("BTC-USD", TRADE, c.epoch, 2, T0_US + 2_000_001, "partly", 1, "the venue keeps no more")
    f.find(gap_of, Check("BTC-USD", ORDERBOOK, "book", T0_US, T0_US + 9, "proved", T0_US + 2_000_002), times=2)


def second_hour(content: Content) -> None:
    """Twins of the hour before, batches of the hour before pushed again, and new events."""
    again = content.elements[1:4]
    content.elements += again
    content.replays += 4 + 4 + 2
    b = content.connection("binance-0-orderbook.trade", 4, T0_US + HOUR_US)
    b.push(b.trade("btcusdt", 11), b.book("btcusdt", "7-9"), b.book("btcusdt", "1-3", "conflict across the edge"))
    b.push(b.trade("btcusdt", 12), b.trade("btcusdt", 12), b.frame(b"[[[["), b.trade("ethusdt", 4))
    b.push(b.trade("btcusdt", 13), b.trade("ethusdt", 5), times=2)
    b.push(b.trade("ethusdt", 6), end="stop")
    c = content.connection("coinbase-0-orderbook.trade", 5, T0_US + HOUR_US)
    c.push(c.trade("BTC-USD", 72), c.trade("BTC-USD", 73), c.book("BTC-USD", f"{c.epoch}-1"))


@dataclass
class Held(Facts):
    """What is in the segments and the ledger of a data directory, read past the application."""

    ranges: list[NumberRange] = field(default_factory=list)
    #: Units counted as replays.
    replays: int = 0
    #: epoch -> when its connection was opened
    opened_us: dict[str, int] = field(default_factory=dict)

    def covers(self, ranges: list[NumberRange]) -> bool:
        return bool(ranges) and all(
            any(r[:3] == a[:3] and r[3] <= a[3] and a[4] <= r[4] for r in self.ranges) for a in ranges
        )

    def facts(self) -> Facts:
        return Facts(self.rows, self.fates, self.gaps, self.losses, self.findings, self.quarantine, self.epochs)


def held(rig: Rig) -> Held:
    """Everything in the data directory of `rig`. Raises: AssertionError where two ranges hold one number."""
    found = Held()
    ledger = rig.wiring().ledger
    for entry in ledger.segments():
        path = rig.settings.storage.segments_path / entry.path
        if entry.state == "removed":
            _archived(found, rig, entry.number)
            assert not path.exists() or not _rows_in(path), f"rows in {path}, which is removed"
            continue
        if not path.exists():
            assert entry.state in ("open", "removing"), f"the file of {entry} is gone"
            continue
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        try:
            if connection.execute("SELECT name FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
                assert entry.state == "open"  # a run was killed while it made the file
                continue
            for table in ("orderbooks", "trades"):
                for row in connection.execute(f"SELECT {COLUMNS} FROM {table}"):
                    found.rows[(table, *row)] += 1
            _gather(found, {name: list(map(dict, connection.execute(f"SELECT * FROM {name}"))) for name in RECORDS})
        finally:
            connection.close()
    removed = _removed(ledger, ledger.segments("removing", "removed"))
    if removed:
        _gather(found, removed)
    return found


def audited(rig: Rig, *, deep: bool = True) -> list[Difference]:
    """What the application's own audit finds wrong; connections without an end are for the reckoning."""
    found = audit(rig.wiring(), deep=deep).differences
    return [difference for difference in found if not difference.what.startswith("stream ")]


def _rows_in(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = [connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in TABLES.values() if t in names]
        return sum(counts)
    finally:
        connection.close()


def _archived(found: Held, rig: Rig, segment: int) -> None:
    """The rows of a removed segment, from its objects."""
    wiring = rig.wiring()
    for entry in wiring.ledger.objects(segment):
        with wiring.store.open(entry.key) as file:
            for chunk in parquet.read(file):
                for row in chunk:
                    found.rows[(TABLES[entry.data_type], entry.exchange, entry.symbol, *row)] += 1


def _removed(ledger: Ledger, entries: list[SegmentEntry]) -> dict[str, list[dict[str, object]]]:
    return {name: ledger.records(name) for name in RECORDS} if entries else {}


def _gather(found: Held, records: dict[str, list[dict[str, Any]]]) -> None:
    for r in records["ranges"]:
        fate = found.fates.setdefault((r["epoch"], r["symbol"], r["feed"]), Fate())
        numbers = set(range(r["first"], r["last"] + 1))
        assert not fate.numbers & numbers, f"numbers in two ranges: {r}"
        fate.numbers |= numbers
        for name in ("stored", "duplicates", "conflicts", "quarantined"):
            setattr(fate, name, getattr(fate, name) + r[name])
        outcomes = r["stored"] + r["duplicates"] + r["quarantined"]
        assert outcomes == len(numbers), f"{len(numbers)} numbers and {outcomes} outcomes: {r}"
        found.ranges.append((r["epoch"], r["symbol"], r["feed"], r["first"], r["last"]))
    for g in records["gaps"]:
        key = g["epoch"], g["symbol"], g["feed"], g["number"], g["from_id"], g["to_id"], g["size"], g["cause"]
        found.gaps[key] += 1
    for x in records["losses"]:
        found.losses[x["epoch"], x["symbol"], x["feed"], x["first"], x["last"], x["count"], x["cause"]] += 1
    for p in records["repairs"]:
        named = p["epoch"], p["symbol"], p["feed"], p["number"], p["state"], p["found"], p["by_epoch"]
        found.findings[named] += 1
    for k in records["checks"]:
        named = k["exchange"], k["symbol"], k["feed"], k["kind"], k["start_us"], k["end_us"], k["verdict"]
        found.findings[named] += 1
    for q in records["quarantine"]:
        found.quarantine[q["epoch"], q["symbol"], q["feed"], q["number"], q["frame"]] += 1
    for e in records["epochs"]:
        found.opened_us[e["epoch"]] = e["opened_us"]
        if e["epoch"] not in found.epochs or e["ended_us"] is not None:
            last = None if e["last_numbers"] is None else msgspec.json.decode(e["last_numbers"])
            found.epochs[e["epoch"]] = (e["stream"], e["exchange"], e["ended_us"], e["reason"], last)
    found.replays += sum(r["times"] * (r["last"] - r["first"] + 1) for r in records["replays"])
