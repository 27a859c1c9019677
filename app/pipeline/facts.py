"""What a segment knows of one market and data type beside its rows: what its object's manifest says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from app import __version__
from app.objects import parquet
from app.objects.completeness import completeness, standing
from app.objects.manifest import (
    CheckRecord,
    EpochSpan,
    GapRecord,
    IdSpan,
    LossRecord,
    Manifest,
    MinuteOffset,
    NumberRange,
    RepairRecord,
)
from app.objects.parquet import Written
from app.store.ledger import SegmentEntry
from app.store.segment import Holding, SealedSegment

Record = TypeVar("Record", bound=msgspec.Struct)


@dataclass(frozen=True)
class Facts:
    """What a segment knows of one market and data type beside its rows."""

    ranges: tuple[NumberRange, ...]
    epochs: tuple[EpochSpan, ...]
    gaps: tuple[GapRecord, ...]
    losses: tuple[LossRecord, ...]
    repairs: tuple[RepairRecord, ...]
    checks: tuple[CheckRecord, ...]
    quarantined: int
    holding: Holding
    sealed_us: int
    ids: IdSpan | None = None

    @classmethod
    def of(cls, segment: SealedSegment, holding: Holding, ids: IdSpan | None = None) -> Facts:
        where = {"exchange": holding.exchange, "symbol": holding.symbol, "feed": holding.data_type}
        ranges = number_ranges(segment, **where)
        epochs = {str(row["epoch"]): row for row in segment.records("epochs", exchange=holding.exchange)}
        spans = tuple(epoch_span(epochs[epoch]) for epoch in dict.fromkeys(r.epoch for r in ranges) if epoch in epochs)
        return cls(
            ranges,
            spans,
            told(GapRecord, segment.records("gaps", **where)),
            told(LossRecord, segment.records("losses", **where)),
            told(RepairRecord, segment.records("repairs", **where)),
            told(CheckRecord, segment.records("checks", **where)),
            segment.count("quarantine", **where),
            holding,
            int(segment.meta()["sealed_us"]),
            ids,
        )

    def manifest(
        self, key: str, entry: SegmentEntry, data_directory: str, server: str | None, written: Written
    ) -> Manifest:
        described = Manifest(
            key=key, exchange=self.holding.exchange, symbol=self.holding.symbol, data_type=self.holding.data_type,
            server=server, segment=entry.number, data_dir=data_directory, opened_us=entry.opened_us,
            sealed_us=self.sealed_us, rows=written.rows, size_bytes=written.size_bytes, sha256=written.sha256,
            first_id=written.first_id, last_id=written.last_id,
            first_collector_us=written.first_us, last_collector_us=written.last_us,
            first_exchange_us=written.first_exchange_us, last_exchange_us=written.last_exchange_us,
            clock_offset_us=written.clock_offset_us,
            clock_offsets=tuple(MinuteOffset(minute_us=m, offset_us=o) for m, o in written.clock_offsets),
            ids=self.ids, duplicates=sum(r.duplicates for r in self.ranges), ranges=self.ranges,
            epochs=self.epochs, gaps=self.gaps, losses=self.losses, repairs=self.repairs,
            checks=self.checks, quarantined=self.quarantined,
            collector_version=__version__, pyarrow_version=parquet.version(),
        )  # fmt: skip
        return judged(described)


def judged(manifest: Manifest) -> Manifest:
    """`manifest` with the state of its gaps, and its completeness, as its own records say."""
    known = [(gap, standing(manifest, gap)) for gap in manifest.gaps]
    gaps = tuple(msgspec.structs.replace(gap, repair=state, found=found) for gap, (state, found) in known)
    value, reasons = completeness(manifest)
    return msgspec.structs.replace(manifest, gaps=gaps, completeness=value, completeness_reasons=reasons)


def told(struct: type[Record], rows: Iterable[dict[str, object]]) -> tuple[Record, ...]:
    """Rows of a record table as a manifest says them."""
    return tuple(struct(**_picked(struct, row)) for row in rows)


def number_ranges(segment: SealedSegment, **where: str) -> tuple[NumberRange, ...]:
    """The ranges of one market and data type as a manifest says them."""
    return tuple(NumberRange(**_picked(NumberRange, row)) for row in segment.records("ranges", **where))


def epoch_span(row: dict[str, object]) -> EpochSpan:
    """A row of `epochs` as a manifest says it."""
    overlaps = tuple(msgspec.json.decode(str(row.get("overlaps", "[]"))))
    return EpochSpan(**_picked(EpochSpan, {**row, "overlaps": overlaps}))


def _picked(struct: type[msgspec.Struct], row: dict[str, object]) -> dict[str, Any]:
    """Fields of a row by name; a segment of an older version may not have them all."""
    return {name: row[name] for name in struct.__struct_fields__ if name in row}
