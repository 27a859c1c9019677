"""How complete every hour of every feed is by now, for a grid that is asked for again and again.

An object never changes: its manifest is read once, and again only when a record that speaks of it is new. What the ledger
keeps of removed segments changes only when another one is removed. So a second look reads the open segment, and little else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy.exc import DBAPIError

from app.errors import StoreError
from app.objects import manifest
from app.objects.completeness import REFETCH, SEAM
from app.objects.manifest import CheckRecord, GapRecord, LossRecord, Manifest, RepairRecord
from app.objects.store import Store
from app.pipeline.certificate import Findings, united
from app.pipeline.facts import told
from app.pipeline.hours import (
    HOUR_US,
    REMEMBERED,
    UNKNOWABLE,
    Cell,
    Feed,
    Holding,
    Part,
    cells,
    hour_of,
    hours_of,
    part,
    so_far,
    until,
)
from app.store.ledger import OPEN, SEALED, SEALING, Ledger, SegmentEntry
from app.store.listing import Archived, Listing
from app.store.segment import SealedSegment
from app.store.stored import Stored

R = TypeVar("R")
Spanning = TypeVar("Spanning", LossRecord, CheckRecord)

#: Checks that may change a verdict. Most others prove what is proved already.
_CHECKS = (
    {"kind": "continuity"},
    {"kind": "crossed", "verdict": "broken"},
    {"kind": "rest", "verdict": "broken"},
    {"kind": SEAM, "verdict": "unknowable"},
    {"kind": REFETCH},
)


class Grid(NamedTuple):
    """The cells of every feed that has one in the time asked for; so many objects are `unread` until the next call."""

    cells: dict[Feed, dict[int, Cell]]
    unread: int


class _Judged(NamedTuple):
    """What an object comes to, by the records that were found of its time: None where its manifest could not be read, which is
    tried again. `by`: where these stand, if that is the ledger alone."""

    first_us: int
    last_us: int
    found: Findings | None
    part: Part
    by: _Found | None


class Hourly:
    """One data directory and the nearest of its stores. One call at a time.

    `at_once`: so many manifests are asked for at the same time; over a network that is faster, from a disk it is not.
    """

    def __init__(
        self,
        ledger: Ledger,
        segments_root: Path,
        store: Store,
        *,
        wall_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        at_once: int = 1,
    ) -> None:
        self._at_once = at_once
        self._ledger, self._root, self._store = ledger, segments_root, store
        self._listing, self._stored = Listing(ledger, segments_root), Stored(ledger, segments_root)
        self._wall_us, self._monotonic_s = wall_us, monotonic_s
        self._judged: dict[str, _Judged] = {}
        #: What the ledger keeps from a time on, while the same segments are removed.
        self._archived: tuple[tuple[int, int], int, _Found] | None = None

    def grid(self, start_us: int, end_us: int, *, deadline_s: float) -> Grid:
        """The cells of the hours that begin in [start_us, end_us). Manifests that cannot be read within `deadline_s` are left
        to the next call, the oldest ones. Raises: SQLAlchemy's errors for an unusable ledger."""
        until_s = self._monotonic_s() + deadline_s
        kept = self._kept(start_us, end_us)
        objects = self._listing.archived(self._store.name, start_us, end_us)
        found = self._found(min([start_us, *(one.opened_us for one in objects)]))
        unread = self._judge(objects, found, until_s)
        parts: dict[Feed, list[Part]] = {}
        for one in objects:
            if (known := self._judged.get(one.key)) is not None:
                parts.setdefault(_feed(one), []).append(known.part)
        for feed, seen in self._running(kept, objects, found):
            parts.setdefault(feed, []).append(part(seen, provisional=True))
        asked = range(hour_of(start_us), end_us, HOUR_US)
        by_hour = {feed: {h: c for h, c in cells(its).items() if h in asked} for feed, its in sorted(parts.items())}
        return Grid({feed: its for feed, its in by_hour.items() if its}, unread)

    def opened(self, feed: Feed, hour_us: int) -> tuple[list[Manifest], list[Manifest]]:
        """One cell: its objects, and what is not archived yet, each as it stands now.

        Raises: StoreError; ValueError where a manifest is none; SQLAlchemy's errors for an unusable ledger.
        """
        end_us = hour_us + HOUR_US
        kept = self._kept(hour_us, end_us)
        objects = [one for one in self._listing.archived(self._store.name, hour_us, end_us) if _feed(one) == feed]
        found = self._found(min([hour_us, *(one.opened_us for one in objects)]), feed)
        read = [self._read(one) for one in objects if one.opened_us < end_us]
        archived = [
            united(told, found.of(feed, *_span(told)))
            for told in read
            if hour_us in hours_of(told.opened_us, until(told))
        ]
        running = self._running(kept, objects, found)
        return archived, [s for f, s in running if f == feed and hour_us in hours_of(s.opened_us, until(s))]

    def _judge(self, objects: list[Archived], found: _Found, until_s: float) -> int:
        """Judge those of `objects` of which something is new, the newest first; how many there was no time for."""

        def unchanged(one: Archived) -> bool:
            known = self._judged.get(one.key)
            if known is None:
                return False
            where = _feed(one), known.first_us, known.last_us
            return (known.by is found.below and not found.speaks_of(*where)) or known.found == found.of(*where)

        def judged(one: Archived) -> _Judged | None:
            if self._monotonic_s() > until_s:
                return None
            try:
                told = self._read(one)
            except (StoreError, ValueError) as error:
                why = f"its manifest cannot be read: {error}"
                known = Part(one.opened_us, one.opened_us, UNKNOWABLE, None, one.rows, 0, 0, 0, 0, False, (why,))
                return _Judged(0, -1, None, known, None)
            where = _feed(one), *_span(told)
            its = found.of(*where)
            by = None if found.speaks_of(*where) else found.below
            return _Judged(*_span(told), its, part(united(told, its)), by)

        if len(self._judged) > REMEMBERED:
            asked = {one.key for one in objects}
            self._judged = {key: known for key, known in self._judged.items() if key in asked}
        new = [one for one in reversed(objects) if not unchanged(one)]
        unread = 0
        with ExitStack() as ends:
            several = self._at_once > 1
            ask = ends.enter_context(ThreadPoolExecutor(self._at_once, "manifests")).map if several else map
            for one, known in zip(new, ask(judged, new), strict=True):
                if known is not None:
                    self._judged[one.key] = known
                else:
                    unread += one.key not in self._judged
        return unread

    def _read(self, one: Archived) -> Manifest:
        with self._store.open(one.manifest_key) as file:
            return manifest.decode(file.read())

    def _running(
        self, kept: list[tuple[SegmentEntry, list[Holding]]], objects: list[Archived], found: _Found
    ) -> Iterator[tuple[Feed, Manifest]]:
        """What `kept` segments hold that is in none of `objects`."""
        held = {(one.segment, _feed(one)) for one in objects}
        for entry, holdings in kept:
            until_us = entry.sealed_us or self._wall_us()
            for one in holdings:
                if (entry.number, one.feed) not in held:
                    seen = so_far(one, entry.opened_us, until_us, found.of(one.feed, entry.opened_us, until_us))
                    if seen is not None:
                        yield one.feed, seen

    def _kept(self, start_us: int, end_us: int) -> list[tuple[SegmentEntry, list[Holding]]]:
        """What the segments that are not removed, and were open in the time asked for, hold of each feed."""
        kept = []
        for entry in self._ledger.segments(OPEN, SEALING, SEALED):
            if entry.opened_us >= end_us or (entry.sealed_us or end_us) < start_us:
                continue
            by_feed: dict[Feed, list[dict[str, Any]]] = {}
            try:
                segment = SealedSegment(self._root / entry.path, settled=entry.state == SEALED)
                for row in segment.records("ranges"):
                    feed = str(row["exchange"]), str(row["symbol"]), str(row["feed"])
                    by_feed.setdefault(feed, []).append(row)
                epochs = {str(row["epoch"]): row for row in segment.records("epochs")}
            except DBAPIError:  # being made, removed meanwhile, or damaged: the flush says so
                continue
            names = {feed: dict.fromkeys(str(row["epoch"]) for row in rows) for feed, rows in by_feed.items()}
            holdings = [
                Holding(feed, rows, [epochs[name] for name in names[feed] if name in epochs])
                for feed, rows in by_feed.items()
            ]
            kept.append((entry, holdings))
        return kept

    def _found(self, start_us: int, feed: Feed | None = None) -> _Found:
        """Everything that was found out about the time from `start_us` on; what the ledger keeps is read when it changed.

        Of one `feed`, where nothing else is asked for: that is not remembered, for it says nothing of the others.
        """
        until_us = self._wall_us() + HOUR_US  # what a mistaken record says beyond that costs no memory
        # Segments before the ledger: what is removed meanwhile is seen at least once.
        kept = _Found(self._records(start_us, "kept", feed), start_us, until_us)
        version = self._listing.removed()
        known = self._archived
        if known is None or known[0] != version or known[1] > start_us:
            known = version, start_us, _Found(self._records(start_us, "archived", feed), start_us, until_us)
            if feed is None:
                self._archived = known
        kept.below = known[2]
        return kept

    def _records(self, start_us: int, files: str, feed: Feed | None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        of = dict(zip(("exchange", "symbol", "feed"), feed, strict=True)) if feed is not None else {}
        records = self._stored.records
        yield "gaps", records("gaps", since=("after_us", start_us), files=files, **of)
        yield "losses", records("losses", since=("end_us", start_us), files=files, **of)
        yield "repairs", records("repairs", since=("found_us", start_us), files=files, **of)
        for where in _CHECKS:
            yield "checks", records("checks", since=("end_us", start_us), files=files, **of, **where)


class _Found:
    """Records by feed and hour."""

    def __init__(self, records: Iterable[tuple[str, list[dict[str, Any]]]], since_us: int, until_us: int) -> None:
        self.below: _Found | None = None
        self._gaps: dict[tuple[Feed, int], list[GapRecord]] = {}
        self._losses: dict[tuple[Feed, int], list[LossRecord]] = {}
        self._checks: dict[tuple[Feed, int], list[CheckRecord]] = {}
        self._repairs: dict[tuple[Feed, str, int], list[RepairRecord]] = {}
        self._repaired: set[Feed] = set()
        for name, rows in records:
            feeds = [(row["exchange"], row["symbol"], row["feed"]) for row in rows]
            if name == "gaps":
                for feed, gap in zip(feeds, told(GapRecord, rows), strict=True):
                    self._gaps.setdefault((feed, hour_of(gap.after_us)), []).append(gap)
            elif name == "repairs":
                for feed, repair in zip(feeds, told(RepairRecord, rows), strict=True):
                    self._repairs.setdefault((feed, repair.epoch, repair.number), []).append(repair)
                self._repaired.update(feeds)
            elif name == "losses":
                _by_hour(self._losses, feeds, told(LossRecord, rows), since_us, until_us)
            else:
                _by_hour(self._checks, feeds, told(CheckRecord, rows), since_us, until_us)

    def speaks_of(self, feed: Feed, first_us: int, last_us: int) -> bool:
        """Whether the kept segments may say something of that time."""
        hours = ((feed, hour_us) for hour_us in range(hour_of(first_us), last_us + 1, HOUR_US))
        return feed in self._repaired or any(
            hour in self._gaps or hour in self._losses or hour in self._checks for hour in hours
        )

    def of(self, feed: Feed, first_us: int, last_us: int) -> Findings:
        """Those that may speak of the time first_us..last_us of `feed`, in one order whatever file they stand in."""
        layers = [self] if self.below is None else [self.below, self]
        hours = [(feed, hour_us) for hour_us in range(hour_of(first_us), last_us + 1, HOUR_US)]
        gaps = _once(gap for at in layers for hour in hours for gap in at._gaps.get(hour, ()))
        named = [(feed, gap.epoch, gap.number) for gap in gaps]
        return Findings(
            gaps,
            _once(loss for at in layers for hour in hours for loss in at._losses.get(hour, ())),
            _once(repair for at in layers for name in named for repair in at._repairs.get(name, ())),
            _once(check for at in layers for hour in hours for check in at._checks.get(hour, ())),
        )


def _by_hour(
    held: dict[tuple[Feed, int], list[Spanning]],
    feeds: list[Feed],
    records: Iterable[Spanning],
    since_us: int,
    until_us: int,
) -> None:
    for feed, record in zip(feeds, records, strict=True):
        for hour_us in range(hour_of(max(record.start_us, since_us)), min(record.end_us, until_us) + 1, HOUR_US):
            held.setdefault((feed, hour_us), []).append(record)


def _once(records: Iterable[R]) -> tuple[R, ...]:
    return tuple(dict.fromkeys(records))


def _feed(one: Archived) -> Feed:
    return one.exchange, one.symbol, one.data_type


def _span(told: Manifest) -> tuple[int, int]:
    """From its first row to its last."""
    first_us, last_us = told.first_collector_us, told.last_collector_us
    return (first_us if first_us is not None else told.opened_us), (last_us if last_us is not None else told.sealed_us)
