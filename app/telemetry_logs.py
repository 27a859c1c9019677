"""One function per observable fact about processes and their logs; the rest is in telemetry.py."""

from __future__ import annotations

from types import TracebackType

from app import telemetry


def process_started(process: str, version: str, files: str | None, levels: str) -> None:
    telemetry.log.info("process.started", process=process, version=version, log_files=files or "none", levels=levels)


def process_alive(process: str, **facts: object) -> None:
    telemetry.log.info("process.alive", process=process, **facts)


def failed_unexpectedly(where: str, error: tuple[type[BaseException], BaseException, TracebackType | None]) -> None:
    """What nobody caught, in the main thread or in `where`."""
    telemetry.log.critical("process.failed", where=where, exc_info=error)


def log_file_deleted(name: str, size_bytes: int, age_s: float) -> None:
    telemetry.log.info("log_file.deleted", name=name, size_bytes=size_bytes, age_days=round(age_s / 86_400, 1))


def log_file_kept(name: str, error: OSError) -> None:
    telemetry._seldom("log_file.kept", "", quiet_s=3600.0, name=name, error=str(error), why="it cannot be deleted")


def log_file_refused(directory: str, error: Exception) -> None:
    """At most once an hour."""
    telemetry._seldom(
        "log_file.refused", directory, quiet_s=3600.0, directory=directory, error=str(error),
        then="its lines are counted (log.dropped); stderr has them, within [collector] log_stderr_level",
    )  # fmt: skip


def log_limited(what: str, lines: int, seconds: float) -> None:
    telemetry.log.warning("log.limited", what=what, lines=lines, seconds=seconds, why="the same again and again")


def queue_lengths_failed(error: Exception) -> None:
    telemetry._seldom("queue_lengths.failed", "", error=str(error), then="the exporter tries again")
