"""One function per observable fact about the archive, logged or counted; the rest is in telemetry.py."""

from __future__ import annotations

from app import metrics, telemetry


def object_written(key: str, rows: int, size_bytes: int) -> None:
    telemetry.log.info("object.written", key=key, rows=rows, size_bytes=size_bytes)


def object_verified(key: str, store: str, how: str) -> None:
    telemetry.log.info("object.verified", key=key, store=store, how=how)


def object_failed(stage: str, subject: str, error: Exception, at: str) -> None:
    """`stage`: what kind of failure, for people; `at`: the step, for `archive_failures_total`, "" where it is none."""
    if at:
        metrics.ARCHIVE_FAILURES.labels(at).inc()
    # Once in ten seconds a stage: a store that is away fails at every object.
    telemetry._seldom(
        "object.failed", stage, level="error", stage=stage, subject=subject, error=str(error),
        then="local rows stay; next cycle retries",
    )  # fmt: skip


def segment_removed(segment: int, rows: int) -> None:
    telemetry.log.info("segment.removed", segment=segment, rows=rows)


def removal_refused(segment: int, why: str) -> None:
    metrics.ARCHIVE_FAILURES.labels("removal").inc()
    telemetry._seldom("segment.removal_refused", str(segment), level="error", segment=segment, why=why)


def archive_skipped(why: str) -> None:
    telemetry.log.info("archive.skipped", why=why)


def object_packed(rows: int, text_bytes: int, size_bytes: int) -> None:
    metrics.PARQUET_ROWS.inc(rows)
    metrics.OBJECT_BYTES.labels("text").inc(text_bytes)
    metrics.OBJECT_BYTES.labels("stored").inc(size_bytes)


def object_put(seconds: float, *, stored: bool) -> None:
    metrics.UPLOAD_SECONDS.labels("success" if stored else "failure").observe(seconds)
    if not stored:
        metrics.UPLOAD_FAILURES.inc()


def request_repeated() -> None:
    metrics.UPLOAD_RETRIES.inc()


def rows_archived(rows: int) -> None:
    metrics.ARCHIVED.inc(rows)


def cycle_completed() -> None:
    metrics.ARCHIVES.inc()
