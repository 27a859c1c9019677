"""Sealed segment -> Parquet -> store -> proved equal -> ledger. Each arrow is committed before the next, so a killed run
is resumed where it stopped, and a second run finds nothing to do. Removal is in removal.py."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy.exc import DBAPIError

from app import telemetry_archive
from app.errors import (
    CollectorError,
    Interrupted,
    KeyTaken,
    RemovalRefused,
    StoreError,
    VerifyFailed,
)
from app.objects import layout, manifest, parquet
from app.objects.manifest import Manifest
from app.objects.parquet import Written
from app.objects.store import Store
from app.pipeline.archive_faults import kind_of, step_of
from app.pipeline.facts import Facts
from app.pipeline.removal import Removal
from app.pipeline.trade_ids import TradeIds
from app.store.ledger import SEALED, VERIFIED, WRITTEN, Ledger, ObjectEntry, SegmentEntry
from app.store.segment import Holding, SealedSegment

T = TypeVar("T")
#: Other bytes under so many names in a row mean that something is wrong with the prefix, not with one object.
MAX_SUFFIX = 20


@dataclass
class ArchiveReport:
    """What one cycle did. `failed` names what stays for the next cycle, and why."""

    objects: int = 0
    rows: int = 0
    removed_segments: list[int] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    timed_out: bool = False

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class Archive:
    """One data directory and its stores. Only ever reads segments; only `Removal` deletes, and only what all proved."""

    def __init__(
        self,
        ledger: Ledger,
        segments_root: Path,
        work_directory: Path,
        stores: Sequence[Store],
        *,
        server: str | None,
        cycle_deadline_s: float,
        monotonic_s: Callable[[], float],
        step: Callable[[str], None] = lambda name: None,
        told: Callable[[Manifest], None] = lambda manifest: None,
    ) -> None:
        self._ledger, self._root, self._work, self._stores = ledger, segments_root, work_directory, stores
        self._server = server
        self._cycle_deadline_s = cycle_deadline_s
        self._now_s = monotonic_s
        #: Called with the manifest of each object that is proved.
        self._step, self._told = step, told
        #: The step that is being taken, as `archive_failures_total` names it.
        self._at = ""
        self._removal = Removal(ledger, segments_root, stores, step=step)

    def run(self, *, final: bool = False, keep_going: Callable[[], bool] = lambda: True) -> ArchiveReport:
        """Archive every sealed segment in each store, then remove what all of them proved and is no longer needed.

        `final` also removes the newest sealed segment, which is otherwise kept so that its successor can find twins.
        One market's failure never stops another's, nor one store's another store's. A store ends early between two
        objects after the cycle's deadline, and at the next step or chunk of rows when `keep_going` says no (the lock was
        lost, the process stops).
        Raises: StoreError when no store can be used at all; Interrupted while that is not known yet.
        """
        report = ArchiveReport()
        self._sweep()
        unusable: list[StoreError] = []
        for store in self._stores:
            try:
                store.prepare()
            except StoreError as error:
                unusable.append(error)
                report.failed[store.name] = str(error)
                telemetry_archive.object_failed(kind_of(error), store.name, error, "store")
            else:
                self._fill(store, report, keep_going)
        if len(unusable) == len(self._stores):
            raise unusable[0]
        if report.timed_out:
            late = TimeoutError("its time is over, or this worker stops")
            telemetry_archive.object_failed("timeout", "cycle", late, "timeout" if keep_going() else "")
        try:
            self._removal.finish()
        except OSError as error:
            report.failed["removal"] = str(error)
            telemetry_archive.object_failed("removal", "unfinished", error, "removal")
        # Without one of its stores nothing can be proved; what is not yet removed waits for it.
        for entry in self._removal.candidates(final=final) if not unusable else ():
            if not keep_going():
                break
            try:
                self._removal.remove(entry)
                report.removed_segments.append(entry.number)
            except Interrupted:
                report.timed_out = True
                break
            except (RemovalRefused, StoreError, DBAPIError, OSError, ValueError) as error:
                report.failed[f"segment {entry.number}"] = str(error)
                telemetry_archive.removal_refused(entry.number, str(error))
        if not report.failed and not report.timed_out:
            telemetry_archive.cycle_completed()
        return report

    def _fill(self, store: Store, report: ArchiveReport, keep_going: Callable[[], bool]) -> None:
        """Put into `store` what it lacks, until the cycle's time is over."""
        started_s = self._now_s()
        over = False
        for entry, segment, holding in self._due(store, report):
            if over or self._now_s() - started_s > self._cycle_deadline_s or not keep_going():
                over = report.timed_out = True
                continue
            try:
                self._object(store, entry, segment, holding, keep_going)
                report.objects += 1
                report.rows += holding.rows
            except Interrupted:
                over = report.timed_out = True
            except (CollectorError, DBAPIError, OSError, ValueError) as error:
                subject = f"segment {entry.number} {'/'.join(holding[:3])}"
                # Two stores may fail at one object, each in its own way.
                report.failed[subject] = "; ".join(filter(None, (report.failed.get(subject), str(error))))
                telemetry_archive.object_failed(kind_of(error), subject, error, step_of(self._at, error))

    def _due(self, store: Store, report: ArchiveReport) -> Iterator[tuple[SegmentEntry, SealedSegment, Holding]]:
        """What `store` lacks, oldest first; after it, what was begun before: one that hangs keeps no other one waiting."""
        begun = []
        for entry in self._ledger.segments(SEALED):
            segment = SealedSegment(self._root / entry.path)
            states = {o[1:4]: o.state for o in self._ledger.objects(entry.number) if o.store == store.name}
            try:
                holdings = segment.holdings()
            except DBAPIError as error:  # a damaged file: it stays, and keeps no other one from the archive
                report.failed[f"segment {entry.number}"] = str(error)
                telemetry_archive.object_failed("write", f"segment {entry.number}", error, "fetch")
                continue
            for holding in holdings:
                state = states.get(holding[:3])
                if state == VERIFIED:
                    self._clear(self._work_path(entry, holding))  # the run that verified it may have been killed then
                elif state == WRITTEN:
                    begun.append((entry, segment, holding))
                else:
                    yield entry, segment, holding
        yield from begun

    def _object(
        self,
        store: Store,
        entry: SegmentEntry,
        segment: SealedSegment,
        holding: Holding,
        keep_going: Callable[[], bool],
    ) -> None:
        """One market and data type of one segment, from rows to a verified object with its manifest in `store`."""
        exchange, symbol, data_type, rows = holding
        path = self._work_path(entry, holding)
        self._step("archive.before_write")
        self._at = "parquet"
        ids = TradeIds(exchange, data_type)
        written = parquet.write(
            path, _while(keep_going, ids.counted(segment.rows(exchange, symbol, data_type)), str(path)),
            exchange=exchange, symbol=symbol, data_type=data_type,
            metadata={"segment": f"{self._ledger.data_directory}/{entry.number}"},
        )  # fmt: skip
        telemetry_archive.object_packed(written.rows, written.text_bytes, written.size_bytes)
        if written.rows != rows:
            raise CollectorError(f"{path}: {written.rows} rows written, the segment holds {rows}")
        self._step("archive.after_write")
        facts = Facts.of(segment, holding, ids.span())
        earlier = self._stored_earlier(store, entry, holding)
        if earlier is not None and earlier.sha256 != written.sha256:
            # The same rows, written by another version of pyarrow before a stop: what is stored is ours and stays.
            written = msgspec.structs.replace(written, sha256=earlier.sha256, size_bytes=earlier.size_bytes)
            if self._finish(store, entry, holding, earlier.key, written, facts, path, put=False):
                return
        for suffix in range(MAX_SUFFIX + 1):
            key = layout.object_key(exchange, symbol, data_type, entry.opened_us, self._server, suffix)
            if self._finish(store, entry, holding, key, written, facts, path):
                return
        raise KeyTaken(store.name, key, f"and {MAX_SUFFIX} more names: is another collector writing this prefix?")

    def _finish(
        self,
        store: Store,
        entry: SegmentEntry,
        holding: Holding,
        key: str,
        written: Written,
        facts: Facts,
        path: Path,
        *,
        put: bool = True,
    ) -> bool:
        """From a written file to a verified object under `key`; False when other bytes stand there, which is recorded."""
        recorded = ObjectEntry(
            entry.number, *holding[:3], store.name, key, holding.rows, written.size_bytes, written.sha256,
            WRITTEN, None, None,
        )  # fmt: skip
        self._ledger.write_object(recorded)
        telemetry_archive.object_written(key, holding.rows, written.size_bytes)
        self._step("archive.after_ledger_written")
        try:
            if put:
                self._put(store, key, path, written.sha256)
                self._step("archive.after_put")
            self._at = "verify"
            proof = store.prove(key, written.sha256, written.size_bytes)
            self._step("archive.after_prove")
            self._at = "manifest"
            described = facts.manifest(key, entry, self._ledger.data_directory, self._server, written)
            self._put_manifest(store, described, path)
            self._step("archive.after_manifest")
        except KeyTaken as error:
            self._ledger.record_conflict(store.name, error.key, entry.number, error.detail)
            telemetry_archive.object_failed("conflict", error.key, error, "conflict")
            return False
        changed = self._ledger.verify_object(recorded, proof.how, layout.manifest_key(key))
        if not changed and all(entry[:9] != recorded[:9] for entry in self._verified(recorded)):
            raise CollectorError(f"{key}: another archive run changed its record meanwhile; the next cycle looks again")
        telemetry_archive.object_verified(key, store.name, proof.how)
        self._told(described)
        if changed and len(self._verified(recorded)) == len(self._stores):
            telemetry_archive.rows_archived(recorded.rows)
        self._step("archive.after_verified")
        self._clear(path)
        return True

    def _put(self, store: Store, key: str, path: Path, sha256: str) -> None:
        self._at, begun_s = "upload", self._now_s()
        try:
            store.put(key, path, sha256)
        except StoreError:
            telemetry_archive.object_put(self._now_s() - begun_s, stored=False)
            raise
        telemetry_archive.object_put(self._now_s() - begun_s, stored=True)

    def _verified(self, recorded: ObjectEntry) -> list[ObjectEntry]:
        """What is proved of the same rows, store by store."""
        found = self._ledger.objects(recorded.segment)
        return [entry for entry in found if entry[1:4] == recorded[1:4] and entry.state == VERIFIED]

    def _stored_earlier(self, store: Store, entry: SegmentEntry, holding: Holding) -> ObjectEntry | None:
        """The object that a run before this one had put, if it is in the store with the bytes that the ledger names."""
        for earlier in self._ledger.objects(entry.number):
            if earlier[1:4] == holding[:3] and earlier.store == store.name and earlier.rows == holding.rows:
                try:
                    store.prove(earlier.key, earlier.sha256, earlier.size_bytes)
                    return earlier
                except VerifyFailed:
                    return None
        return None

    def _work_path(self, entry: SegmentEntry, holding: Holding) -> Path:
        return self._work / str(entry.number) / holding.exchange / holding.symbol / f"{holding.data_type}.parquet"

    def _clear(self, path: Path) -> None:
        """Remove a file that is in the store, and the directories that are empty without it."""
        path.unlink(missing_ok=True)
        for directory in path.parents[:3]:
            try:
                directory.rmdir()
            except OSError:
                return

    def _sweep(self) -> None:
        """Remove what a run that another one overtook, or that was killed, had written of segments that are gone."""
        sealed = {str(entry.number) for entry in self._ledger.segments(SEALED)}
        for directory in self._work.iterdir() if self._work.is_dir() else ():
            if directory.name not in sealed:
                shutil.rmtree(directory, ignore_errors=True)

    def _put_manifest(self, store: Store, description: Manifest, beside: Path) -> None:
        """Store the manifest. One of the same object, written by an earlier run or version, is as good."""
        text = manifest.encode(description)
        path = beside.with_suffix(".json")
        path.write_bytes(text)
        key = layout.manifest_key(description.key)
        try:
            store.put(key, path, hashlib.sha256(text).hexdigest())
            store.prove(key, hashlib.sha256(text).hexdigest(), len(text))
        except KeyTaken as error:
            with store.open(key) as file:
                try:
                    held = manifest.decode(file.read())
                except ValueError as fault:  # damaged on its way, or by another hand: it describes nothing
                    raise error from fault
            if _essence(held) != _essence(description):
                raise
        finally:
            path.unlink(missing_ok=True)


def _while(keep_going: Callable[[], bool], chunks: Iterator[T], what: str) -> Iterator[T]:
    """`chunks`, as long as `keep_going` says so. Raises: Interrupted."""
    for chunk in chunks:
        if not keep_going():
            raise Interrupted(what)
        yield chunk


def _essence(description: Manifest) -> tuple[object, ...]:
    """What a removal asks of a manifest."""
    return description.key, description.sha256, description.rows, description.ranges
