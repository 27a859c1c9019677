"""One function per observable fact about the disk and the databases on it; the rest is in telemetry.py."""

from __future__ import annotations

from collections.abc import Sequence

from app import metrics, telemetry
from app.model import Loss


def disk_filling(said: str, *, full: bool) -> None:
    """At most once a minute."""
    then = "nothing more is taken out of Redis until there is room" if full else "at 90 % nothing more is taken"
    telemetry._seldom(
        "disk.filling", str(full), quiet_s=60.0, level="error" if full else "warning", used=said, then=then
    )


def station_failed(station: str, kind: str, error: Exception) -> None:
    telemetry._seldom(
        "station.failed", f"{station} {kind}", level="error", station=station, kind=kind, error=str(error),
        then="the data stays where it is; the next run tries again",
    )  # fmt: skip


def schedule_not_kept(error: Exception) -> None:
    telemetry._seldom(
        "schedule.not_kept", "", error=f"{type(error).__name__}: {error}", then="beat goes on from memory"
    )


def frames_let_go(size_bytes: int) -> None:
    telemetry.log.warning(
        "quarantine.let_go", size_bytes=size_bytes, then="the rows stay and say so; see [storage] quarantine_max_bytes"
    )


def segment_damaged(segment: int, path: str, fault: str) -> None:
    telemetry.log.error(
        "segment.damaged", segment=segment, path=path, fault=fault, then="what can be read goes into a new file"
    )


def segment_salvaged(segment: int, kept: str, rows: int, lost: int, losses: Sequence[tuple[str, Loss]]) -> None:
    for exchange, loss in losses:
        metrics.LOST.labels(exchange, loss.symbol, loss.feed, loss.cause).inc(loss.count or 0)
        metrics.LOSSES.labels(exchange, loss.symbol, loss.feed, loss.cause).inc()
    telemetry.log.error(
        "segment.salvaged", segment=segment, damaged_file=kept, rows=rows, lost=lost, declared=len(losses),
        then="the losses are on record (segment_damaged); recording goes on",
    )  # fmt: skip


def ledger_damaged(path: str, fault: str) -> None:
    telemetry.log.error(
        "ledger.damaged", path=path, fault=fault, then="it is rebuilt from segments, manifests and its copy"
    )


def salvage_failed(segment: int, error: Exception) -> None:
    telemetry._seldom(
        "salvage.failed", str(segment), level="error", segment=segment, error=f"{type(error).__name__}: {error}"
    )


def segment_unreadable(segment: int, error: Exception) -> None:
    telemetry._seldom(
        "segment.unreadable", str(segment), segment=segment, error=str(error), then="recording goes on without it"
    )


def twins_unknown(key: str, error: Exception) -> None:
    telemetry._seldom(
        "object.unreadable", key, key=key, error=str(error), then="what it holds may be stored again if it comes again"
    )
