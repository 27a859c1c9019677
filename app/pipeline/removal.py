"""The only code that deletes data: a sealed segment, after everything in it is proved to be in every store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from app import telemetry_archive
from app.errors import RemovalRefused
from app.objects import manifest
from app.objects.store import Store
from app.store.ledger import REMOVED, REMOVING, SEALED, VERIFIED, Ledger, ObjectEntry, SegmentEntry
from app.store.schema import SEGMENT_RECORDS
from app.store.segment import SealedSegment, remove_file

#: Records are carried to the ledger so many at a time.
CHUNK_RECORDS = 100


class Removal:
    """Removes segments of one data directory, one behind: the newest sealed one is where twins are looked up."""

    def __init__(
        self, ledger: Ledger, segments_root: Path, stores: Sequence[Store], *, step: Callable[[str], None]
    ) -> None:
        self._ledger, self._root, self._stores = ledger, segments_root, stores
        self._step = step

    def finish(self) -> None:
        """Take removals up again that were stopped half-way: they had been proved before they began."""
        for entry in self._ledger.segments(REMOVING):
            self._remove_file(entry)

    def candidates(self, *, final: bool) -> list[SegmentEntry]:
        """Sealed segments whose successor is sealed too; all sealed ones where this is the `final` cycle."""
        sealed = self._ledger.segments(SEALED)
        return sealed if final else sealed[:-1]

    def remove(self, entry: SegmentEntry) -> None:
        """Remove one sealed segment, or refuse. Raises: RemovalRefused, StoreError; the segment stays then."""
        segment = SealedSegment(self._root / entry.path)
        rows = self._prove(entry, segment)
        records = {name: segment.chunks(name, CHUNK_RECORDS) for name in SEGMENT_RECORDS}
        self._step("removal.before_ledger")
        if self._ledger.begin_removal(entry.number, rows, records):
            self._step("removal.after_ledger")
            self._remove_file(entry)

    def _remove_file(self, entry: SegmentEntry) -> None:
        remove_file(self._root / entry.path)
        self._step("removal.after_unlink")
        if self._ledger.move_segment(entry.number, REMOVING, REMOVED):
            telemetry_archive.segment_removed(entry.number, entry.rows or 0)

    def _prove(self, entry: SegmentEntry, segment: SealedSegment) -> int:
        """Rows of the segment, all of them proved to be in every store. Raises: RemovalRefused."""
        held = {holding[:3]: holding.rows for holding in segment.holdings()}
        ranges: dict[tuple[object, ...], set[tuple[object, ...]]] = {}
        for row in segment.records("ranges"):
            key = row["exchange"], row["symbol"], row["feed"]
            ranges.setdefault(key, set()).add((row["epoch"], row["first"], row["last"], row["stored"]))
        for store in self._stores:
            stored = {
                entry_[1:4]: entry_
                for entry_ in self._ledger.objects(entry.number)
                if entry_.state == VERIFIED and entry_.store == store.name
            }
            if missing := held.keys() - stored.keys():
                markets = sorted("/".join(key) for key in missing)
                raise RemovalRefused(entry.number, f"no verified object of {markets} in store {store.name}")
            if extra := stored.keys() - held.keys():
                raise RemovalRefused(entry.number, f"objects of markets it does not hold: {sorted(extra)}")
            for key, rows in held.items():
                self._check_manifest(store, entry.number, stored[key], rows, ranges.get(key, set()))
        if sum(r[3] for found in ranges.values() for r in found) != sum(held.values()):  # type: ignore[misc]
            raise RemovalRefused(entry.number, "its ranges say another number of stored events than it has rows")
        return sum(held.values())

    def _check_manifest(
        self, store: Store, number: int, entry: ObjectEntry, rows: int, ranges: set[tuple[object, ...]]
    ) -> None:
        if entry.rows != rows:
            raise RemovalRefused(number, f"{entry.key} has {entry.rows} rows, the segment {rows}")
        if entry.manifest_key is None:
            raise RemovalRefused(number, f"{entry.key} has no manifest")
        with store.open(entry.manifest_key) as file:
            held = manifest.decode(file.read())
        if held.sha256 != entry.sha256 or held.rows != rows:
            raise RemovalRefused(number, f"the manifest of {entry.key} describes other bytes")
        if {(r.epoch, r.first, r.last, r.stored) for r in held.ranges} != ranges:
            raise RemovalRefused(number, f"the manifest of {entry.key} lists other ranges than the segment")
