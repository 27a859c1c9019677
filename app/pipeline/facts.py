"""What a segment knows of one market and data type beside its rows: what its object's manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from app import __version__
from app.objects import parquet
from app.objects.manifest import (
    CheckRecord,
    EpochSpan,
    GapRecord,
    LossRecord,
    Manifest,
    NumberRange,
    RepairRecord,
)
from app.objects.parquet import Written
from app.store.ledger import SegmentEntry
from app.store.segment import Holding, SealedSegment


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

    @classmethod
    def of(cls, segment: SealedSegment, holding: Holding) -> Facts:
        where = {"exchange": holding.exchange, "symbol": holding.symbol, "feed": holding.data_type}
        ranges = number_ranges(segment, **where)
        epochs = {str(row["epoch"]): row for row in segment.records("epochs", exchange=holding.exchange)}
        spans = tuple(_span(epochs[epoch]) for epoch in dict.fromkeys(r.epoch for r in ranges) if epoch in epochs)
        return cls(
            ranges,
            spans,
            tuple(GapRecord(**_picked(GapRecord, row)) for row in segment.records("gaps", **where)),
            tuple(LossRecord(**_picked(LossRecord, row)) for row in segment.records("losses", **where)),
            tuple(RepairRecord(**_picked(RepairRecord, row)) for row in segment.records("repairs", **where)),
            tuple(CheckRecord(**_picked(CheckRecord, row)) for row in segment.records("checks", **where)),
            segment.count("quarantine", **where),
            holding,
            int(segment.meta()["sealed_us"]),
        )

    def manifest(
        self, key: str, entry: SegmentEntry, data_directory: str, server: str | None, written: Written
    ) -> Manifest:
        return Manifest(
            key=key, exchange=self.holding.exchange, symbol=self.holding.symbol, data_type=self.holding.data_type,
            server=server, segment=entry.number, data_dir=data_directory, opened_us=entry.opened_us,
            sealed_us=self.sealed_us, rows=written.rows, size_bytes=written.size_bytes, sha256=written.sha256,
            first_id=written.first_id, last_id=written.last_id,
            first_collector_us=written.first_us, last_collector_us=written.last_us,
            first_exchange_us=written.first_exchange_us, last_exchange_us=written.last_exchange_us,
            clock_offset_us=written.clock_offset_us, ranges=self.ranges, epochs=self.epochs, gaps=self.gaps,
            losses=self.losses, repairs=self.repairs, checks=self.checks, quarantined=self.quarantined,
            collector_version=__version__, pyarrow_version=parquet.version(),
        )  # fmt: skip


def number_ranges(segment: SealedSegment, **where: str) -> tuple[NumberRange, ...]:
    """The ranges of one market and data type as a manifest says them."""
    return tuple(NumberRange(**_picked(NumberRange, row)) for row in segment.records("ranges", **where))


def _span(row: dict[str, object]) -> EpochSpan:
    overlaps = tuple(msgspec.json.decode(str(row.get("overlaps", "[]"))))
    return EpochSpan(**_picked(EpochSpan, {**row, "overlaps": overlaps}))


def _picked(struct: type[msgspec.Struct], row: dict[str, object]) -> dict[str, Any]:
    """Fields of a row by name; a segment of an older version may not have them all."""
    return {name: row[name] for name in struct.__struct_fields__ if name in row}
