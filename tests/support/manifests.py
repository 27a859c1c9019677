"""Manifests for tests: an object of one hour that is in order, and what may be said against it."""

from __future__ import annotations

from typing import Any

from app.objects.manifest import CheckRecord, GapRecord, IdSpan, LossRecord, Manifest, NumberRange, RepairRecord

EPOCH = "ab" * 16
OPENED_US, SEALED_US = 3_600_000_000, 7_200_000_000
FIRST_US, LAST_US = OPENED_US + 1_000_000, SEALED_US - 1_000_000


def described(exchange: str = "binance", data_type: str = "trade", rows: int = 100, **more: Any) -> Manifest:
    """A manifest of `rows` rows; trades with ids 1 to `rows`."""
    ids = IdSpan(first=1, last=rows) if data_type == "trade" else None
    fields: dict[str, Any] = {
        "key": f"{exchange}/S/{data_type}/1970-01-01/{OPENED_US // 1000}.parquet", "exchange": exchange, "symbol": "S",
        "data_type": data_type, "segment": 1, "data_dir": "d0" * 16, "opened_us": OPENED_US, "sealed_us": SEALED_US,
        "rows": rows, "size_bytes": 1, "sha256": "0" * 64, "first_collector_us": FIRST_US, "last_collector_us": LAST_US,
        "ranges": (NumberRange(epoch=EPOCH, first=1, last=rows, stored=rows),), "ids": ids, "collector_version": "0",
        "pyarrow_version": "0",
    }  # fmt: skip
    return Manifest(**{**fields, **more})


def gap(number: int, first: int, last: int, size: int | None = None, at_us: int = FIRST_US) -> GapRecord:
    size = last - first + 1 if size is None else size
    return GapRecord(
        epoch=EPOCH, number=number, from_id=str(first), to_id=str(last), size=size or None, before_us=at_us,
        after_us=at_us + 1, cause="missing_ids",
    )  # fmt: skip


def repair(number: int, state: str, found: int, found_us: int = SEALED_US) -> RepairRecord:
    return RepairRecord(
        epoch=EPOCH, number=number, found_us=found_us, state=state, found=found, detail="", by_epoch="cd" * 16
    )


def loss(count: int | None, start_us: int = FIRST_US, end_us: int = LAST_US, cause: str = "memory_full") -> LossRecord:
    last = 10**6 + (count or 1) - 1
    return LossRecord(epoch=EPOCH, first=10**6, last=last, count=count, start_us=start_us, end_us=end_us, cause=cause)


def check(verdict: str, start_us: int = FIRST_US, end_us: int = LAST_US, kind: str = "continuity") -> CheckRecord:
    return CheckRecord(
        kind=kind, start_us=start_us, end_us=end_us, verdict=verdict, checked_us=SEALED_US, detail=f"{verdict} words"
    )
