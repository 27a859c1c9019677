"""Reads what every station says of the numbers it holds: spool, Redis lists, segments, ledger, in the order of the path.

In that order, what moves on meanwhile is seen at least once. Segments are read from the newest to the oldest and the ledger
last, so that whatever is seen, everything that its stream delivered before it is seen as well: a hole is a hole, also
while a flush is running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy.exc import DBAPIError

from app.buffer import spool as spools
from app.codec import BatchCodec, ElementRejected, header
from app.model import Batch
from app.quality.balance import Difference
from app.quality.records import ARCHIVED, REDIS, SEGMENT, SPOOL, Epoch, Lost, Records, Run
from app.store.ledger import OPEN, REMOVED, REMOVING, SEALED, SEALING, SegmentEntry
from app.store.reading import Market, Row, Told, read_ledger, read_segment

if TYPE_CHECKING:
    from app.wiring import Wiring


@dataclass
class SegmentRead:
    """A kept segment as it was read."""

    entry: SegmentEntry
    path: Path
    told: Told

    @property
    def settled(self) -> bool:
        return self.entry.state == SEALED


@dataclass
class Survey:
    """Everything that was read, and what could not be."""

    records: Records = field(default_factory=Records)
    segments: list[SegmentRead] = field(default_factory=list)
    ledger: Told = field(default_factory=Told)
    unreadable: list[Difference] = field(default_factory=list)
    #: Elements in lists or spools that are no batches; the flush quarantines them.
    foreign: int = 0


def survey(
    wiring: Wiring,
    *,
    under_way: bool = True,
    epochs: Set[str] | None = None,
    everything: bool = True,
    count: bool = False,
    archived: Set[tuple[int, str, str, str]] = frozenset(),
) -> Survey:
    """All stations, those of batches `under_way` (of `epochs`, where given) only where they are asked for.

    `everything` False leaves out what the ledger keeps of epochs that ended and have nothing in a segment that is kept.
    `count` counts rows. Numbers are `archived` where (segment, exchange, symbol, feed) says so, and in the ledger.
    Raises: BufferUnavailable; SQLAlchemy's errors for an unusable ledger.
    """
    result = Survey()
    if under_way:
        codec = BatchCodec()
        for place, _, element in waiting(wiring):
            batch = _batch(codec, element, epochs)
            if isinstance(batch, Batch):
                result.records.add_batch(batch, place)
            else:
                result.foreign += batch is None
    kept = wiring.ledger.segments(OPEN, SEALING, SEALED)
    failed: dict[int, tuple[Path, Exception]] = {}
    for entry in reversed(kept):
        path = wiring.settings.storage.segments_path / entry.path
        if entry.state == OPEN and not path.exists():
            continue
        try:
            told = read_segment(path, settled=entry.state == SEALED, count=count)
            result.segments.append(SegmentRead(entry, path, told))
        except (DBAPIError, OSError) as error:
            failed[entry.number] = path, error
    rows = [row for read in result.segments for row in read.told.epochs]
    seen = None if everything else {str(name) for row in rows for name in (row["epoch"], row.get("after")) if name}
    result.ledger = read_ledger(wiring.ledger.path, epochs=seen, count=count)
    gone = {number for number, state in result.ledger.states.items() if state in (REMOVING, REMOVED)}
    for number, (path, fault) in failed.items():
        if number not in gone:
            why = "the file is not there" if not path.exists() else str(fault)
            result.unreadable.append(Difference(f"segment {number}", str(path), f"it cannot be read: {why}"))
    result.segments = [read for read in result.segments if read.entry.number not in gone]
    for row in result.ledger.neighbours:
        result.records.add_epoch(_epoch(row))
    for told in (result.ledger, *(read.told for read in reversed(result.segments))):
        for row in told.epochs:
            result.records.add_epoch(_epoch(row))
    _add(result.records, result.ledger, lambda market: ARCHIVED)
    for read in result.segments:
        number = read.entry.number
        _add(result.records, read.told, lambda m, number=number: ARCHIVED if (number, *m) in archived else SEGMENT)  # type: ignore[misc]
    return result


def waiting(wiring: Wiring) -> Iterator[tuple[str, str, bytes]]:
    """(place, stream, element) of everything in the spools of this host, then in the Redis lists; nothing is taken.

    Raises: BufferUnavailable.
    """
    root = wiring.settings.spool.dir
    for stream in spools.streams(root):
        for path in sorted((root / stream).glob("*.spool")):
            try:
                for element, _ in spools.read_records(path):
                    yield SPOOL, stream, element
            except FileNotFoundError:  # delivered meanwhile: it is in Redis, which is read next
                continue
    for depth in wiring.buffer.depths():
        for element in wiring.buffer.waiting(depth.stream):
            yield REDIS, depth.stream, element


def _batch(codec: BatchCodec, element: bytes, epochs: Set[str] | None) -> Batch | bool | None:
    """The batch; None where it is none, False where it is of another epoch than those asked for."""
    try:
        if epochs is not None and header(element).epoch not in epochs:
            return False
        return codec.decode(element)
    except ElementRejected:
        return None


def _epoch(row: Row) -> Epoch:
    last = msgspec.json.decode(row["last_numbers"]) if row["last_numbers"] else []
    return Epoch(
        row["epoch"], row["stream"], row["exchange"], row["opened_us"], row.get("kind", "stream"),
        tuple(msgspec.json.decode(row.get("overlaps", "[]"))), row["ended_us"], row["reason"],
        tuple(((symbol, feed), number) for symbol, feed, number in last), row.get("after", ""),
    )  # fmt: skip


def _add(records: Records, told: Told, place_of: Callable[[Market], str]) -> None:
    for r in told.ranges:
        place = place_of((r["exchange"], r["symbol"], r["feed"]))
        records.runs.append(
            Run(place, r["exchange"], r["epoch"], r["symbol"], r["feed"], r["first"], r["last"], r["stored"],
                r["duplicates"], r["quarantined"], r.get("first_us"), r.get("last_us"))
        )  # fmt: skip
    for x in told.losses:
        records.losses.add(
            Lost(x["exchange"], x["epoch"], x["symbol"], x["feed"], x["first"], x["last"], x["count"], x["start_us"],
                 x["end_us"], x["cause"])
        )  # fmt: skip
    for r in told.replays:
        epoch = records.epochs.get(r["epoch"])
        if epoch is not None:
            key = epoch.exchange, r["symbol"], r["feed"]
            records.replays[key] = records.replays.get(key, 0) + r["times"] * (r["last"] - r["first"] + 1)
